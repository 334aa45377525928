/** The end of a step: whether the gradients of all ranks are finite, so that all of them update their parameters, or none. */
import { alignment, type Device } from "../gpu/device.ts";
import type { WaitHistory } from "../gpu/poll.ts";
import { parameterAt, type ParameterBlock } from "../layers/parameter_blocks.ts";
import { fill } from "../ops/elementwise.ts";
import { findNotFinite, notFiniteAt } from "../ops/finite.ts";
import { empty, release, view } from "../tensor.ts";
import { promised } from "./promised.ts";

/** A gradient that is infinite or NaN somewhere. */
export interface NotFinite {
  /** Whose parameter it is of. */
  readonly rank: number;
  /** Name of the parameter. */
  readonly parameter: string;
}

/** A question that every rank answers once. */
export interface Verdict {
  /** Answers for one rank, and waits for the answers of all: what the lowest rank has found, or undefined where all is fine. */
  cast(found: NotFinite | undefined): Promise<NotFinite | undefined>;
  /** The outcome. */
  readonly result: Promise<NotFinite | undefined>;
  /** Ends every wait with this error: a rank has failed, and its answer will not come. */
  fail(error: unknown): void;
}

/** A verdict of so many ranks. */
export function createVerdict(ranks: number): Verdict {
  const { promise, resolve, reject } = promised<NotFinite | undefined>();
  let missing = ranks;
  let first: NotFinite | undefined;
  return {
    cast(found) {
      if (found && !(first && first.rank < found.rank)) first = found;
      if (--missing === 0) resolve(first);
      return promise;
    },
    result: promise,
    fail: reject,
  };
}

/**
 * Records a look at a rank's gradients, which reads each of them once. To be called once that is submitted: the returned
 * function, which waits for what it has found, and for all work before; `history` tells how long that took in the last steps.
 */
export function lookAt(
  device: Device,
  blocks: readonly ParameterBlock[],
  history?: WaitHistory,
): () => Promise<NotFinite | undefined> {
  const found = empty(device, [Math.max(1, blocks.length), alignment / 4], "workspace", "u32");
  fill(found, 0);
  blocks.forEach(({ gradients }, index) => {
    const own = view(found, [1], index * alignment);
    findNotFinite(own, gradients);
    release(own);
  });
  const read = device.startRead(found, history);
  return async () => {
    const words = new Uint32Array(await read());
    release(found);
    for (const [index, block] of blocks.entries()) {
      const at = notFiniteAt(words[index * alignment / 4]);
      if (at !== undefined) return { rank: device.rank, parameter: parameterAt(block, at).name };
    }
    return undefined;
  };
}
