/** Tensors that two stages of a rank keep: each counts what it keeps, and here is what that is off by. */
import type { Groups } from "./groups.ts";

/** How far a group's inputs have come. */
interface Progress {
  /** Inputs that are there. */
  readonly made: number;
  /** Those of them that the stage before has given back. */
  readonly givenBack: number;
  /** Whether the stage itself has: its W or B has run. */
  readonly isOver: boolean;
}

/** The shared inputs of one rank's stages, by cell of the stage that takes them. */
export interface SharedInputs {
  /** The stage before has made the input. */
  make(cell: number): void;
  /** The stage before needs it no more. */
  giveBack(cell: number): void;
  /** The group of the stage itself is over. */
  end(cell: number): void;
  /** Whether it is. */
  isOver(cell: number): boolean;
  /** A way back to here. */
  mark(): () => void;
}

/**
 * Follows the shared inputs of a rank. Memory goes with the last who keeps it: until a group is over, what both keep is there once
 * and counted twice; then the slab is there as a whole until the stage before has given back the last of it.
 *
 * @param add Called with the number of inputs by which the count changes.
 */
export function followShared({ keyOf, sizeOf }: Groups, add: (cell: number, inputs: number) => void): SharedInputs {
  let groups = new Map<number, Progress>();
  const counted = ({ made, givenBack, isOver }: Progress, size: number) => isOver ? givenBack % size : givenBack - made;
  const at = (cell: number) => groups.get(keyOf(cell)) ?? { made: 0, givenBack: 0, isOver: false };
  const change = (cell: number, step: (now: Progress) => Partial<Progress>) => {
    const size = sizeOf(cell), now = at(cell), next = { ...now, ...step(now) };
    add(cell, counted(next, size) - counted(now, size));
    if (next.isOver && next.givenBack === size) groups.delete(keyOf(cell));
    else groups.set(keyOf(cell), next);
  };
  return {
    make: (cell) => change(cell, ({ made }) => ({ made: made + 1 })),
    giveBack: (cell) => change(cell, ({ givenBack }) => ({ givenBack: givenBack + 1 })),
    end(cell) {
      if (groups.has(keyOf(cell))) change(cell, () => ({ isOver: true })); // once for all of it
    },
    isOver: (cell) => at(cell).isOver,
    mark() {
      if (groups.size === 0) return () => groups.clear();
      const now = new Map(groups);
      return () => void (groups = now);
    },
  };
}
