/** Side inputs of a batch: what it brings, or what the model says there is. */
import type { SideInput } from "../models/side_inputs.ts";
import { sizeOf } from "../tensor.ts";
import type { Batch, BatchArray } from "./data.ts";

/** What a batch brings for side input `name`, if anything. */
export function givenSide({ lengths, sides }: Batch, name: string): BatchArray | undefined {
  return name === "lengths" ? lengths : sides?.[name];
}

/** The numbers of side input `name`, described so, of all samples of a batch. */
export function sideOf(batch: Batch, name: string, { type, shape, otherwise = 0 }: SideInput): BatchArray {
  const given = givenSide(batch, name);
  if (given) return given;
  const count = batch.samples * sizeOf(shape);
  return (type === "u32" ? new Uint32Array(count) : new Float32Array(count)).fill(otherwise);
}
