/** The ranks of a pipeline: made with what they need, and given back. */
import type { Device } from "../gpu/device.ts";
import { createTimer } from "../gpu/timing.ts";
import type { Layer } from "../layers/layer.ts";
import type { Sums } from "../layers/sums.ts";
import type { Model } from "../models/model.ts";
import { empty, release } from "../tensor.ts";
import { specFor } from "../train/optimizer_groups.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import { placedOrUndone, placeStage } from "./placed.ts";
import type { Rank } from "./run.ts";
import type { Tie } from "./ties.ts";
import type { Transport } from "./transport.ts";

/** The way of each rank to the others, for ranks that have these devices. */
export type Connect = (devices: readonly Device[]) => readonly Transport[];

/** What is placed, and where. */
export interface Placement {
  readonly model: Model;
  /** The layers of each stage as one. */
  readonly layers: readonly Layer[];
  /** Who makes the sums of each stage. */
  readonly sums: readonly Sums[];
  /** Rank of each stage. */
  readonly placement: readonly number[];
  readonly ties: readonly Tie[];
}

/** How it is placed. */
export interface RankOptions {
  readonly optimizer: OptimizerSpec;
  /** Of the initial parameters. */
  readonly seed?: number;
  /** By the name of a parameter that starts as a copy of another, the other's name. */
  readonly originals: ReadonlyMap<string, string>;
  /** Whether kernels read f16 copies of f32 masters. */
  readonly mixed: boolean;
}

/**
 * The ranks that these devices run, each with its stages and their optimizers; nothing is placed where that fails.
 *
 * @throws {UserError} Where parameters and moments exceed the budget or the device.
 */
export function placeRanks(
  devices: readonly Device[],
  { model, layers, sums, placement, ties }: Placement,
  { optimizer, seed, originals, mixed }: RankOptions,
  connect: Connect,
): readonly Rank[] {
  const dtype = mixed ? "f16" : "f32";
  /** A tied copy is treated as its original, or the two would part. */
  const kindOf = (name: string) => specFor(optimizer, originals.get(name) ?? name);
  const placed = placedOrUndone(devices, () =>
    devices.map((device, number) => {
      const own = [...placement.keys()].filter((stage) => placement[stage] === number);
      const stages = new Map(
        own.map((stage) => [stage, placeStage(layers[stage], sums[stage], device, { seed, originals, dtype, kindOf })]),
      );
      const optimizers = [...stages.values()].flatMap(({ blocks }) => blocks).map((block) =>
        kindOf(block.parameters[0].name)
          .create(
            block.masters,
            block.gradients,
            block.decayed,
            mixed ? block.values : undefined,
            block.parameters.map(({ shape }, index) => ({ shape, start: block.starts[index] })),
          )
      );
      const lossGradient = stages.has(layers.length - 1) ? empty(device, [1], "gradients") : undefined;
      return { stages, optimizers, lossGradient };
    }));
  const transports = connect(devices);
  return devices.map((device, number) => {
    const timer = createTimer(device), transport = transports[number];
    return { number, device, model, dtype, ties, timer, transport, kept: { tensors: new Map() }, ...placed[number] };
  });
}

/** Gives back everything the rank holds on its device. */
export function releaseRank({ optimizers, timer, transport, lossGradient, stages, device }: Rank): void {
  optimizers.forEach((optimizer) => optimizer.release());
  timer?.close();
  transport.close();
  release(lossGradient);
  for (const stage of stages.values()) stage.release();
  device.releaseCaches();
}
