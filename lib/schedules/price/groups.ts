/** The micro-batches that end their stay with one W or B, as a memory model counts them. */
import { B, type Program } from "../program.ts";

/** Groups of one rank; a micro-batch on a stage is a cell, `stage * microbatches + microbatch`. */
export interface Groups {
  /** A number for the group of a cell. */
  keyOf(cell: number): number;
  /** How many micro-batches it has. */
  sizeOf(cell: number): number;
  /** Whether a B ends it, or its F, where there are forward passes alone. */
  isWhole(cell: number): boolean;
}

/** The groups of a rank's W and B as they are placed. */
export function groupsOf({ schedule: { actions }, group, first, kind, forwardOnly }: Program, rank: number): Groups {
  return {
    keyOf: (cell) => group[cell],
    sizeOf: (cell) => actions[rank][group[cell] - first[rank]].microbatches.length,
    isWhole: (cell) => forwardOnly || kind[group[cell]] === B,
  };
}

/** Every micro-batch alone, and split: where the W are still to be placed. */
export const alone: Groups = { keyOf: (cell) => cell, sizeOf: () => 1, isWhole: () => false };
