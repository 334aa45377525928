/** Layers. */
export type { BufferBlock, PlacedState, StateBuffer } from "./buffers.ts";
export type { Group } from "./group.ts";
export type { Flops, Layer, Reads } from "./layer.ts";
export type { Initial, Parameter } from "./parameter.ts";
export type { ParameterBlock, PlacedParameter } from "./parameter_blocks.ts";
export type { Placed } from "./placed.ts";
export { type Recompute, recomputed } from "./recompute.ts";
export type { ChildOptions, Saved } from "./saved.ts";
export type { Reading, Sums } from "./sums.ts";
