/** `deno task bench memory --steps N`: whether memory grows while a step is repeated. */
import { adamw, createModel, createPipeline, type DeviceSet, type Schedule } from "twobp";
import { growthQuantities, type GrowthRow, measureGrowth } from "twobp/measure";
import { countParameters } from "twobp/models";
import type { Precision, RecomputePolicy, SumsPolicy } from "twobp/runtime";
import { sizesOf } from "twobp/schedules";
import type { Outputs } from "../lib/cli/outputs.ts";
import { sourceFor } from "./data.ts";

/** What `bench memory` was told. */
export interface GrowthCommand {
  model: string;
  schedule: Schedule;
  recompute: RecomputePolicy;
  sums: SumsPolicy;
  precision: Precision;
  replicas: number;
  shardOptimizer?: boolean;
  samples: number;
  steps: number;
}

/** Runs the steps, prints a line every tenth of them (every 100 of 1,000) and the slopes, and writes what the flags ask for. */
export async function runGrowth(set: DeviceSet, out: Outputs, command: GrowthCommand): Promise<void> {
  const { schedule, recompute, sums, precision, replicas, shardOptimizer, samples, steps } = command;
  const { say } = out;
  const { split: twoStage, microbatches } = sizesOf(schedule);
  const model = createModel(command.model);
  const { name: data, source } = sourceFor(model, undefined, 1);
  const what = schedule.policy ? `${schedule.name} with 2BP (${schedule.policy})` : schedule.name;
  const about = `Memory over ${steps} steps of ${model.name}, ${what}, on ${set.devices.length} ${set.mode} devices, ` +
    `${set.adapter}${
      replicas > 1 ? `, ${replicas} replicas` : ""
    }; ${microbatches} micro-batches of ${samples}; ${precision}; AdamW; ${data}`;
  say(about);
  const line = (cells: readonly (string | number)[]) =>
    cells.map((cell, column) => String(cell).padStart(column === 0 ? 8 : 10)).join("");
  say(line(columns));
  const make = () =>
    createPipeline(set, model, {
      optimizer: adamw(),
      placement: schedule.placement,
      recompute,
      sums,
      precision,
      replicas,
      shardOptimizer,
    });
  const every = Math.max(1, Math.round(steps / 10));
  const growth = await measureGrowth(set, make, schedule, source, {
    steps,
    every,
    samples,
    onRow: (row) => say(line(cellsOf(row))),
  });
  const slopes = growthQuantities.map((quantity) => {
    const value = growth.slopes[quantity];
    return `${quantity === "inUse" ? "in use" : quantity} ${value.toFixed(1)}${quantity === "buffers" ? "" : " bytes"}`;
  });
  const verdict = `MiB. Growth a step (slope of the line of least squares, without the first fifth): ${
    slopes.join(", ")
  }.`;
  say(verdict);
  await out.results("bench", {
    title: "Memory over steps",
    report: {
      schema: 1,
      mode: set.mode,
      devices: set.devices.length,
      ...(replicas > 1 ? { replicas, shardOptimizer: shardOptimizer ?? false } : {}),
      model: { name: model.name, parameters: countParameters(model), ...model.configuration },
      schedule: schedule.name,
      twoStage,
      samples,
      precision,
      steps,
      ...growth,
    },
    sections: () => [{
      heading: "Memory over steps",
      text: `${about}\n\n${verdict}`,
      table: { columns, rows: growth.rows.map(cellsOf) },
    }],
  });
}

const columns = ["step", "in use", "reserved", "buffers", "resident", "heap"];

/** Bytes in MiB. */
function cellsOf({ step, inUse, reserved, buffers, resident, heap }: GrowthRow): (string | number)[] {
  const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(2);
  return [step, mib(inUse), mib(reserved), buffers, mib(resident), mib(heap)];
}
