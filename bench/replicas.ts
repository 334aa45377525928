/**
 * `deno task bench replicas`: 2BP beside data parallelism, simulated: a step of more and more devices on hosts of eight, with the sums
 * of gradients over replicas as early as each schedule makes them, against plain 1F1B with its sums after it; and how long that
 * takes to work out. Needs no GPU.
 */
import { Command } from "commander";
import { generate, type Schedule, simulate, twoStage } from "twobp";
import { type Table, tableText } from "twobp/report";
import { plainMakespan, sizesOf, unitCosts, withReplicas } from "twobp/schedules";
import * as flag from "../lib/cli/flags.ts";
import { openOutputs, type OutputPaths } from "../lib/cli/outputs.ts";

/** Devices and replicas; eight devices a host. */
const sizes = [[16, 2], [64, 4], [256, 8], [1024, 16], [4096, 64]];

/** Of a stage's work, in the time of a forward of a micro-batch on a rank: what a sum takes inside a host, and between hosts. */
const network = { inside: { latency: 0.005, bandwidth: 4 }, between: { latency: 0.02, bandwidth: 0.5 } };

interface Row {
  devices: number;
  hosts: number;
  replicas: number;
  schedule: string;
  actions: number;
  makespan: number;
  bubbleRatio: number;
  /** Of the rank that has most, and by how much they make the step longer. */
  sums: number;
  exposedSums: number;
  /** Over plain 1F1B with its sums after it. */
  gain: number;
  /** Seconds to make, split, price and compare. */
  seconds: number;
}

function measure(devices: number, replicas: number, name: string, policy: "fill" | undefined): Row {
  const begin = performance.now(), ranks = devices / replicas, hosts = devices / 8;
  const base = generate(name, { devices: ranks, microbatches: 4 * ranks }), { stages } = sizesOf(base);
  const share = ranks / stages; // a rank's work and parameters are those of its stages together
  const compute = unitCosts({ f: share, i: share, w: share });
  const costs = withReplicas(compute, base.placement, {
    replicas,
    hosts,
    network,
    gradients: 4 * share,
    message: 0.02,
  });
  const split: Schedule = policy ? twoStage(base, { policy, costs }) : base;
  const { makespan, bubbleRatio, sums } = simulate(split, costs), { sum: _, ...rest } = costs;
  const byRank = new Float64Array(ranks);
  for (const { rank, start, end } of sums) byRank[rank] += end - start;
  return {
    devices,
    hosts,
    replicas,
    schedule: policy ? `${name}, 2BP ${policy}` : name,
    actions: split.actions.reduce((sum, list) => sum + list.length, 0),
    makespan,
    bubbleRatio,
    sums: Math.max(...byRank),
    exposedSums: makespan - simulate(split, rest).makespan,
    gain: plainMakespan(split, costs) / makespan,
    seconds: (performance.now() - begin) / 1e3,
  };
}

/** The command, to be added to `deno task bench`. */
export const replicas: Command = new Command("replicas")
  .description(
    "Steps of 16 to 4,096 devices with replicas on hosts of eight, simulated, and the time to work them out.",
  )
  .addOption(flag.json("the rows"))
  .addOption(flag.html())
  .addOption(flag.out())
  .action(async (paths: OutputPaths) => {
    const out = openOutputs(paths);
    measure(16, 2, "1f1b", "fill"); // compiles
    const rows = sizes.flatMap(([devices, count]) => [
      measure(devices, count, "1f1b", "fill"),
      measure(devices, count, "interleaved-1f1b", undefined),
      measure(devices, count, "interleaved-1f1b", "fill"),
      measure(devices, count, "zb-v", undefined),
    ]);
    const table: Table = {
      columns: [
        "devices",
        "replicas",
        "ranks",
        "schedule",
        "step",
        "bubble",
        "sums",
        "exposed",
        "gain",
        "actions",
        "seconds",
      ],
      rows: rows.map((row) => [
        row.devices,
        row.replicas,
        row.devices / row.replicas,
        row.schedule,
        row.makespan.toFixed(1),
        `${(100 * row.bubbleRatio).toFixed(1)} %`,
        row.sums.toFixed(1),
        row.exposedSums.toFixed(1),
        row.gain.toFixed(3),
        row.actions,
        row.seconds.toFixed(2),
      ]),
      notes: [
        "Simulated: F, I and W of a rank take 1 each. Hosts of eight devices; the ranks of a replica are neighbours. Sums are direct.",
        "Gain: over plain 1F1B without 2BP, its sums after each rank's last action. Seconds: to make, split, price and compare.",
      ],
    };
    out.say(tableText(table));
    await out.results("bench", {
      title: "Replicas on hosts of eight (simulated)",
      report: { schema: 1, mode: "simulated", network, rows },
      sections: () => [{ heading: "Replicas on hosts of eight (simulated)", table }],
    });
  });
