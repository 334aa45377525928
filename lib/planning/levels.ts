/** What each stage of a model costs and holds, for each choice of what to recompute and who makes sums for W. */
import type { Layer } from "../layers/layer.ts";
import { stageMemories, type StageMemoryOptions } from "../measure/stage_memory.ts";
import type { Model } from "../models/model.ts";
import { recomputes } from "../layers/recompute.ts";
import { sumsMakers } from "../layers/sums.ts";
import type { Level } from "./fit.ts";
import { stageWork } from "./stage_work.ts";

/**
 * The levels of each stage, the one without recomputation first. Costs are floating-point operations; memory is that of a run
 * on shapes, for schedules without a W of several micro-batches.
 */
export async function levelsOf(
  model: Model,
  parts: readonly (readonly Layer[])[],
  options: Omit<StageMemoryOptions, "parts" | "recompute" | "sums" | "stages" | "width">,
  onLevel: (done: number, all: number) => void,
): Promise<Level[][]> {
  const longest = Math.max(...parts.map((layers) => layers.length));
  // Quarters of the layers: finer steps cost time and save little.
  const counts = [...new Set([1, 2, 3, 4].map((quarter) => Math.ceil(longest * quarter / 4)))];
  const kinds = recomputes.filter((kind) => kind !== "none");
  const ways: Pick<Level, "recompute" | "sums">[] = [
    // Who recomputes is short of memory, and leaves the sums where they hold least.
    ...sumsMakers.map((sums) => ({ recompute: "none" as const, sums })),
    ...kinds.flatMap((kind) => counts.map((count) => ({ recompute: `${kind}:${count}` as const, sums: "i" as const }))),
  ];
  const levels: Level[][] = parts.map(() => []);
  for (const [index, way] of ways.entries()) {
    const memories = await stageMemories(model, { ...options, parts, ...way });
    const work = stageWork(model, { samples: options.samples, parts, ...way });
    work.forEach((cost, stage) => levels[stage].push({ ...way, cost, memory: memories[stage] }));
    onLevel(index + 1, ways.length);
  }
  return levels;
}
