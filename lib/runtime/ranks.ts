/** The ranks of a pipeline: made with what they need, and given back. */
import type { Device } from "../gpu/device.ts";
import { createTimer } from "../gpu/timing.ts";
import type { Layer } from "../layers/layer.ts";
import type { ParameterBlock } from "../layers/parameter_blocks.ts";
import type { Sums } from "../layers/sums.ts";
import type { Model } from "../models/model.ts";
import { empty, release } from "../tensor.ts";
import { specFor } from "../train/optimizer_groups.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";
import { optimizerOf } from "./piece_optimizer.ts";
import { placedOrUndone, placeStage } from "./placed.ts";
import type { Rank } from "./run.ts";
import { type Share, sharesOf, type Sharing, updatedPiece } from "./shares.ts";
import type { Tie } from "./ties.ts";
import { nameOf, placeOf, type World } from "./world.ts";

/** What is placed, and where. */
export interface Placement {
  readonly model: Model;
  /** The layers of each stage as one. */
  readonly layers: readonly Layer[];
  /** Who makes the sums of each stage. */
  readonly sums: readonly Sums[];
  /** How many ranks a replica has. */
  readonly size: number;
  /** Rank of each stage. */
  readonly placement: readonly number[];
  readonly ties: readonly Tie[];
}

/** How it is placed. */
export interface RankOptions {
  readonly optimizer: OptimizerSpec;
  /** Whether each replica updates a piece of the parameters; no by default. */
  readonly shardOptimizer?: boolean;
  /** Of the initial parameters. */
  readonly seed?: number;
  /** By the name of a parameter that starts as a copy of another, the other's name. */
  readonly originals: ReadonlyMap<string, string>;
  /** Whether kernels read f16 copies of f32 masters. */
  readonly mixed: boolean;
}

/**
 * The ranks that these devices of a world run, each with its stages and their optimizers; nothing is placed where that fails.
 *
 * @throws {UserError} Where parameters and moments exceed the budget or the device.
 */
export function placeRanks(
  devices: readonly Device[],
  { model, layers, sums, size, placement, ties }: Placement,
  { optimizer, shardOptimizer = false, seed, originals, mixed }: RankOptions,
  world: World,
): readonly Rank[] {
  const dtype = mixed ? "f16" : "f32";
  /** A tied copy is treated as its original, or the two would part. */
  const kindOf = (name: string) => specFor(optimizer, originals.get(name) ?? name);
  const replicas = world.size / size;
  const places = world.peers.map((peer) => {
    const place = placeOf(peer, size);
    return { peer, ...place, replicas: Array.from({ length: replicas }, (_, at) => at * size + place.number) };
  });
  const specOf = ({ parameters: [first] }: ParameterBlock) => kindOf(first.name);
  const sharing: Sharing = {
    ...{ replicas, specOf, sharded: shardOptimizer },
    tied: ties.flatMap(({ parameters }) => parameters),
    id: ties.length + layers.length, // behind the sums of tied gradients and of the stages' state
  };
  const placed = placedOrUndone(devices, () =>
    devices.map((device, at) => {
      const { number, replica } = places[at];
      device.place = nameOf(places[at]);
      const own = [...placement.keys()].filter((stage) => placement[stage] === number);
      const stages = new Map(
        own.map((stage) => [stage, placeStage(layers[stage], sums[stage], device, { seed, originals, dtype, kindOf })]),
      );
      const shares = replicas > 1 ? sharesOf(stages, sharing) : new Map<number, readonly Share[]>();
      const optimizers = [...stages].flatMap(([stage, { blocks }]) =>
        blocks.map((block, index) =>
          optimizerOf(specOf(block), block, updatedPiece(block, shares.get(stage)?.[index], replica))
        )
      );
      const lossGradient = stages.has(layers.length - 1) ? empty(device, [1], "gradients") : undefined;
      return { stages, shares, optimizers, lossGradient };
    }));
  const transports = world.connect(devices);
  return devices.map((device, at) => {
    const timer = createTimer(device), transport = transports[at];
    return {
      ...places[at],
      device,
      model,
      dtype,
      ties,
      timer,
      transport,
      kept: { tensors: new Map() },
      ...placed[at],
    };
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
