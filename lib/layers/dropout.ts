/** Dropout (Srivastava et al., 2014): no parameters, and nothing kept, the mask is recomputed. */
import { UserError } from "../errors.ts";
import * as ops from "../ops/dropout.ts";
import { scale } from "../ops/elementwise.ts";
import { sizeOf } from "../tensor.ts";
import { hash } from "../random.ts";
import type { Layer } from "./layer.ts";

/** What a layer's dropout masks depend on besides the step's seed. */
export interface DropoutOptions {
  /** Share of the elements that become 0, at least 0 and below 1. */
  readonly rate: number;
  /** Rows of a sample. */
  readonly length: number;
}

/**
 * Drops elements; the mask follows from the side input "seed", the layer's name and the element's place in the batch. An evaluation
 * drops nothing.
 */
export function dropout(name: string, { rate, length }: DropoutOptions): Layer {
  checkRate(name, rate);
  const salt = hash(name);
  return {
    parameters: [],
    pieces: "alone",
    reads: { sides: ["seed"] },
    outputShape: (shape) => shape,
    flops: (shape) => ({ f: 12 * sizeOf(shape), i: 12 * sizeOf(shape), w: 0 }),
    forward(y, x, saved) {
      if (saved.evaluating) scale(y, x, 1);
      else ops.dropout(y, x, { rate, salt, seed: saved.side("seed") }, length);
    },
    backwardInput(dx, dy, saved) {
      if (dx) ops.dropout(dx, dy, { rate, salt, seed: saved.side("seed") }, length);
    },
  };
}

/**
 * Refuses a rate that the layer `name` cannot drop at.
 *
 * @throws {UserError} Unless it is 0 or more, and below 1.
 */
export function checkRate(name: string, rate: number): void {
  if (!(rate >= 0 && Math.fround(rate) < 1)) {
    throw new UserError(`${name}: a dropout rate is at least 0 and below 1, not ${rate}`);
  }
}

/** The layers, followed by dropout unless its rate is 0: then nothing is added, and nothing costs. */
export function withDropout(name: string, options: DropoutOptions, ...layers: Layer[]): Layer[] {
  return options.rate === 0 ? layers : [...layers, dropout(name, options)];
}
