/** Whether the scaled gradients of a step have overflowed on any rank, so that all of them leave its update out. */
import type { Device } from "../gpu/device.ts";
import { fill } from "../ops/elementwise.ts";
import { findOverflow } from "../ops/finite.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { promised } from "./promised.ts";

/** A question that every rank answers once; one yes makes it true. */
export interface Vote {
  /** Answers for one rank, and waits for the answers of all. */
  cast(yes: boolean): Promise<boolean>;
  /** The outcome. */
  readonly result: Promise<boolean>;
  /** Ends every wait with this error: a rank has failed, and its answer will not come. */
  fail(error: unknown): void;
}

/** A vote among so many ranks. */
export function createVote(ranks: number): Vote {
  const { promise, resolve, reject } = promised<boolean>();
  let missing = ranks, any = false;
  return {
    cast(yes) {
      any ||= yes;
      if (--missing === 0) resolve(any);
      return promise;
    },
    result: promise,
    fail: reject,
  };
}

/** Whether a rank's gradients, f32, have infinities or NaNs in them; waits for all work before. */
export async function overflows(device: Device, gradients: readonly Tensor[]): Promise<boolean> {
  const found = empty(device, [1], "workspace", "u32");
  fill(found, 0);
  for (const gradient of gradients) findOverflow(found, gradient);
  const [flag] = new Uint32Array(await device.read(found));
  release(found);
  return flag !== 0;
}
