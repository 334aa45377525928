/** What the optimizers of all ranks remember, by the names of parameters: whatever the partition, it is the same. */
import { UserError } from "../errors.ts";
import { release, sizeOf, type Tensor, toArray, view, writeArray } from "../tensor.ts";
import { anything, expectFields, optional, whole } from "../rules.ts";
import type { LossScale } from "../train/loss_scale.ts";
import type { Rank } from "./run.ts";
import { updatedPiece } from "./shares.ts";
import { arraysFor } from "./values.ts";

/** All that further updates depend on besides parameters and running statistics. */
export interface OptimizerState {
  /** How many updates the optimizer has made. */
  readonly updates: number;
  /** What it keeps of each trained parameter, by the parameter's name, a dot and its own, "blocks.0.norm.weight.exp_avg"; of tied ones once. */
  readonly values: ReadonlyMap<string, Float32Array>;
  /** In mixed precision what the loss is multiplied by, and how many good steps it has been so. */
  readonly lossScale?: { readonly value: number; readonly good: number };
}

/** What optimizers keep of one parameter. */
interface ParameterMoment {
  /** The parameter's name, a dot and its own. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Of the copy of a tied parameter the name of the original's, which is the same. */
  readonly original?: string;
  /** Where it lies: on each replica all of it, or those of its elements that are in the replica's piece. */
  readonly stretches: Stretch[];
}

/** Some elements of a moment, one after another. */
interface Stretch {
  /** The first of them in the parameter. */
  readonly start: number;
  /** Shares the optimizer's memory, without a reference of its own. */
  readonly tensor: Tensor;
}

/** What a state of the optimizers consists of: of tied parameters the original's alone. */
export function savedMoments(ranks: readonly Rank[], originals: ReadonlyMap<string, string>) {
  const { updates, moments } = momentsOf(ranks, originals);
  return { updates, moments: moments.filter(({ original }) => original === undefined) };
}

/** What these ranks have of them, by the name and the first element of each stretch; what several replicas have is read once. */
export async function readStretches(moments: readonly ParameterMoment[]): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const { name, stretches } of moments) {
    for (const { start, tensor } of stretches) {
      const key = `${start} ${name}`;
      if (!values.has(key)) values.set(key, await toArray(tensor));
    }
  }
  return values;
}

/** The values of moments with these shapes, of which {@link readStretches} has read the stretches. */
export function joined(
  stretches: ReadonlyMap<string, Float32Array>,
  shapes: ReadonlyMap<string, readonly number[]>,
): Map<string, Float32Array> {
  const values = new Map([...shapes].map(([name, shape]) => [name, new Float32Array(sizeOf(shape))]));
  for (const [key, stretch] of stretches) {
    const [start] = key.split(" ", 1);
    values.get(key.slice(start.length + 1))!.set(stretch, Number(start));
  }
  return values;
}

/**
 * What all optimizers keep, and how many updates they have made, all alike.
 *
 * @param originals By the name of a tied copy, the original's.
 * @throws {UserError} When one does not say what it keeps.
 */
function momentsOf(
  ranks: readonly Rank[],
  originals: ReadonlyMap<string, string>,
): { updates: number; moments: readonly ParameterMoment[] } {
  const moments = new Map<string, ParameterMoment>();
  let updates = 0;
  for (const rank of ranks) {
    const { stages, optimizers, shares, replica } = rank;
    const blocks = [...stages].flatMap(([stage, { blocks }]) =>
      blocks.map((block, at) => ({ block, piece: updatedPiece(block, shares.get(stage)?.[at], replica) }))
    );
    for (const [index, { block: { parameters, starts }, piece }] of blocks.entries()) {
      const { memory } = optimizers[index];
      if (!memory) {
        throw new UserError(
          `The optimizer on rank ${rank.number} has no \`memory\`, which says what it keeps from update to update: it cannot be saved`,
        );
      }
      ({ updates } = memory);
      for (const [at, { name, shape }] of parameters.entries()) {
        for (const moment of memory.moments) {
          const first = piece.start + moment.start, size = sizeOf(shape); // of the moment, in the block
          const from = Math.max(starts[at], first);
          const to = Math.min(starts[at] + size, first + sizeOf(moment.values.shape));
          if (from >= to) continue; // of other parameters
          const tensor = view(moment.values, [to - from], 4 * (from - first));
          release(tensor); // the optimizer has its own
          const key = `${name}.${moment.name}`, original = originals.get(name);
          const known = moments.get(key) ?? {
            ...{ name: key, shape, stretches: [] },
            ...(original === undefined ? {} : { original: `${original}.${moment.name}` }),
          };
          known.stretches.push({ start: from - starts[at], tensor });
          moments.set(key, known);
        }
      }
    }
  }
  return { updates, moments: [...moments.values()] };
}

/**
 * Gives all optimizers other moments, another count, and the loss another scale.
 *
 * @throws {UserError} When that does not fit; nothing has changed then.
 */
export function resumeOptimizers(
  model: string,
  ranks: readonly Rank[],
  originals: ReadonlyMap<string, string>,
  lossScale: LossScale | undefined,
  state: OptimizerState,
): void {
  expectFields("setOptimizerState", state, { updates: whole(0), values: anything, lossScale: optional(anything) });
  const { moments } = momentsOf(ranks, originals);
  const copies = new Map(moments.flatMap(({ name, original }) => original === undefined ? [] : [[name, original]]));
  const fresh = arraysFor("moment", model, moments, state.values, copies);
  if (!lossScale !== !state.lossScale) {
    throw new UserError(
      lossScale
        ? "setOptimizerState: mixed precision needs `lossScale`, and the state has none: it is of f32"
        : "setOptimizerState: the state has a loss scale, of mixed precision, and this pipeline is f32",
    );
  }
  if (lossScale) lossScale.restore(state.lossScale!);
  for (const [{ stretches }, array] of fresh) {
    for (const { start, tensor } of stretches) writeArray(tensor, array.subarray(start, start + sizeOf(tensor.shape)));
  }
  for (const { optimizers } of ranks) optimizers.forEach(({ memory }) => memory!.resume(state.updates));
}
