/**
 * What a file needs beside it in PyTorch's world: torchtitan reads the order of actions from a CSV and everything else,
 * the placement too, from its configuration; Megatron-LM reads no order at all, and a partition as a layout.
 *
 * As in torchtitan and Megatron-LM of August 2026.
 *
 * @module
 */

import { UserError } from "../../errors.ts";
import { sizesOf } from "../check/sizes.ts";
import { interleavedPlacement, vPlacement } from "../generators/placement.ts";
import type { Schedule } from "../schedule.ts";
import { writeLayout } from "./layout.ts";

/**
 * How torchtitan and Megatron-LM would call a placement: `loop` is dealt out round after round, `v` down and up again with
 * two stages a rank; one stage a rank in order is a loop. Anything else is `other`, which only PyTorch's runtime takes.
 */
export function placementStyle({ placement }: Schedule): "loop" | "v" | "other" {
  const ranks = 1 + Math.max(...placement), chunks = placement.length / ranks;
  const is = (other: readonly number[]) =>
    other.length === placement.length && other.every((rank, stage) => rank === placement[stage]);
  if (Number.isInteger(chunks) && is(interleavedPlacement(ranks, chunks))) return "loop";
  return is(vPlacement(ranks)) ? "v" : "other";
}

/**
 * Checks a partition, as `--partition` gives it.
 *
 * @throws {UserError} When it has not a number for each stage.
 */
export function checkPartition({ placement }: Schedule, layers: readonly number[]): void {
  if (layers.length === placement.length) return;
  throw new UserError(
    `--partition has ${layers.length} ${layers.length === 1 ? "number" : "numbers"} for ${placement.length} stages; ` +
      "give the transformer layers of each stage, from the input on",
  );
}

/**
 * Lines of a torchtitan configuration for a file, or `undefined` where it has no such placement. `layers` are the
 * transformer layers of each stage.
 */
export function torchtitanLines(schedule: Schedule, path: string, layers?: readonly number[]): string[] | undefined {
  const { devices, stages, microbatches } = sizesOf(schedule);
  const style = placementStyle(schedule);
  if (style === "other") return undefined;
  // Beside a CSV the name says two things: whether a rank has one stage or more, and which.
  const name = style === "v" ? "ZBVZeroBubble" : stages === devices ? "1F1B" : "Interleaved1F1B";
  const lines = [
    `config.parallelism.pipeline_parallel_degree = ${devices}`,
    `config.parallelism.num_pp_microbatches = ${microbatches}`,
    `config.parallelism.pipeline_parallel_schedule = "${name}"`,
    `config.parallelism.pipeline_parallel_schedule_csv = "${path}"`,
  ];
  if (layers) {
    const parts = modulesOf(layers).map((names) => `    ${JSON.stringify(names).replaceAll(",", ", ")},`);
    lines.push("config.parallelism.module_fqns_per_model_part = [", ...parts, "]");
  }
  return lines;
}

/** What each stage has of a language model of torchtitan, by name. */
function modulesOf(layers: readonly number[]): string[][] {
  let layer = 0;
  const parts = layers.map((count) => Array.from({ length: count }, () => `layers.${layer++}`));
  parts[0].unshift("tok_embeddings");
  parts[parts.length - 1].push("norm", "lm_head");
  return parts;
}

/**
 * Megatron-LM's string for a partition, `Et*3|t*4|t*4|t*3,L` for example, with the embedding on the first stage and the
 * loss on the last; `undefined` for a placement that it does not have: its stages go round the ranks.
 */
export function megatronLayout(schedule: Schedule, layers: readonly number[]): string | undefined {
  if (placementStyle(schedule) !== "loop") return undefined;
  return writeLayout(layers);
}
