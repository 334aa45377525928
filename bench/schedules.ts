/**
 * `deno task bench schedules`: how long it takes to generate, split, validate and simulate 1F1B with 2BP, and how that
 * grows with ranks x micro-batches. Runs on one core and needs no GPU.
 *
 * Measured on one of two shared cores (Deno 2.9): 256 x 2,048, 1.6 million actions, in 2 s, of which validating and
 * simulating take 0.5 s; 1.0 to 1.8 microseconds an action at every size, so time grows with N x M.
 */
import { Command } from "commander";
import { generate, simulate, twoStage, validate } from "twobp";
import { type Table, tableText } from "twobp/report";
import * as flag from "../lib/cli/flags.ts";
import { openOutputs, type OutputPaths } from "../lib/cli/outputs.ts";

const sizes = [[16, 128], [32, 256], [64, 512], [128, 1024], [256, 2048]];

interface Row {
  devices: number;
  microbatches: number;
  actions: number;
  /** Milliseconds of each step. */
  ms: { generate: number; twoStage: number; validate: number; simulate: number };
  nanosecondsPerAction: number;
  makespan: number;
}

function measure(devices: number, microbatches: number): Row {
  const timed = <T>(run: () => T): [T, number] => {
    const start = performance.now();
    const result = run();
    return [result, performance.now() - start];
  };
  const [base, generated] = timed(() => generate("1f1b", { devices, microbatches }));
  const [split, transformed] = timed(() => twoStage(base));
  const [, validated] = timed(() => validate(split));
  const [{ makespan }, simulated] = timed(() => simulate(split));
  const actions = split.actions.reduce((sum, list) => sum + list.length, 0);
  const total = generated + transformed + validated + simulated;
  return {
    devices,
    microbatches,
    actions,
    ms: { generate: generated, twoStage: transformed, validate: validated, simulate: simulated },
    nanosecondsPerAction: 1e6 * total / actions,
    makespan,
  };
}

/** The command, to be added to `deno task bench`. */
export const schedules: Command = new Command("schedules")
  .description("Time to generate, split, validate and simulate 1F1B with 2BP, up to 256 ranks x 2,048 micro-batches.")
  .addOption(flag.json("the rows"))
  .addOption(flag.html())
  .addOption(flag.out())
  .action(async (paths: OutputPaths) => {
    const out = openOutputs(paths);
    // Once unmeasured, so that the first row does not pay for compilation.
    measure(...sizes[1] as [number, number]);
    const rows = sizes.map(([devices, microbatches]) => measure(devices, microbatches));
    const table: Table = {
      columns: [
        "ranks",
        "micro-batches",
        "actions",
        "generate ms",
        "2BP ms",
        "validate ms",
        "simulate ms",
        "ns an action",
      ],
      rows: rows.map(({ devices, microbatches, actions, ms, nanosecondsPerAction }) => [
        devices,
        microbatches,
        actions,
        ...[ms.generate, ms.twoStage, ms.validate, ms.simulate].map((time) => time.toFixed(1)),
        nanosecondsPerAction.toFixed(0),
      ]),
    };
    out.say(tableText(table));
    await out.results("bench", {
      title: "1F1B with 2BP, by size",
      report: { schema: 1, rows },
      sections: () => [{ heading: "Times by size", table }],
    });
  });
