/**
 * The flags that several commands take, each declared once: the same name, wording and range wherever it stands. For
 * commander's `addOption()`.
 *
 * @module
 */
import { Option } from "commander";
import { modelNames } from "../models/registry.ts";
import { precisions } from "../runtime/pipeline.ts";
import { parseRecompute } from "../runtime/recompute.ts";
import { parseSums } from "../runtime/sums.ts";
import { scheduleNames } from "../schedules/generators/generate.ts";
import { paperSchedules } from "../schedules/transforms/pair.ts";
import { formatPolicy, parsePolicy, policies as kinds, spellingOf } from "../schedules/transforms/policy.ts";
import { onNames } from "./predicted_for.ts";
import { integer, listOf, oneOf, reading } from "./options.ts";

/** A flag of one command alone, its default shown as it would be written. */
export function option(
  flags: string,
  description: string,
  read?: (text: string) => unknown,
  fallback?: unknown,
): Option {
  const made = new Option(flags, description);
  if (read) made.argParser(read);
  if (fallback === undefined) return made;
  return made.default(fallback, Array.isArray(fallback) ? fallback.join(",") : undefined);
}

/** `--model`; `others` are words that stand for a model besides. */
export function model(fallback?: string, others: readonly string[] = [], meaning = ""): Option {
  return option(
    "--model <name>",
    `model: ${modelNames.join(", ")}${meaning}`,
    oneOf([...modelNames, ...others]),
    fallback,
  );
}

/** `--on`, of commands that run nothing. */
export function on(): Option {
  return option(
    "--on <kind>",
    "devices that memory is predicted for, since kernels are chosen by their kind: gpu, lavapipe, swiftshader, or here, those that " +
      "would be opened (default: gpu)",
    oneOf(onNames),
  );
}

/** `--devices`; without it as many as the CSV files among the schedules have rows, or else `usual`. */
export function devices(least: number, most: number, usual: number): Option {
  const otherwise = `default: ${usual}, or the rows of a CSV file`;
  return option("--devices <n>", `pipeline ranks, ${least} to ${most} (${otherwise})`, integer(least, most));
}

/** `--devices`, of commands that have `--replicas` besides. */
export function devicesOfReplicas(most: number, usual: number): Option {
  const otherwise = `default: ${usual}, or the rows of a CSV file, for each replica`;
  return option("--devices <n>", `devices of all replicas, 1 to ${most}, one a rank (${otherwise})`, integer(1, most));
}

/** `--replicas`. */
export function replicas(most: number): Option {
  return option(
    "--replicas <r>",
    "copies of the pipeline, each with its share of the batch: devices are cut into so many pipelines (default: 1)",
    integer(1, most),
  );
}

/** `--shard-optimizer`. */
export function shardOptimizer(): Option {
  return option(
    "--shard-optimizer",
    "each replica updates a part of the parameters and sends it to the others (ZeRO, stage 1)",
  );
}

/** `--microbatches`; `usual` says in words what holds without it. */
export function microbatches(most: number, usual: string): Option {
  return option("--microbatches <m>", `micro-batches in a step, 1 to ${most} (default: ${usual})`, integer(1, most));
}

/** `--warmup`, of a traced run. */
export function warmup(): Option {
  return option(
    "--warmup <n>",
    "steps at the beginning to leave out (default: those that take 1.5 times the median of the steps after them)",
    integer(0, 1e6),
  );
}

/** `--virtual`; `what` it does. */
export function virtual(what = "run all ranks on one device and compose the step times"): Option {
  return option("--virtual", `${what} (default: where devices are too few)`);
}

/** `--schedules`: of the zoo, or in CSV files; by default those of the 2BP paper. */
export function schedules(): Option {
  return option("--schedules <a,b>", `any of ${scheduleNames.join(", ")}, and CSV files`, listOf(), paperSchedules);
}

/** `--two-stage`. */
export function twoStage(): Option {
  return option("--two-stage", "split every backward in two: 2BP");
}

const policyHelp = kinds.map((each) => `${spellingOf(each)} (${each.runs})`).join(", ");

const policyOf = (text: string) => formatPolicy(parsePolicy(text));

/** `--policy`; `fallback` says in words what holds without it. */
export function policy(fallback: string): Option {
  return option("--policy <policy>", `when W runs: ${policyHelp} (default: ${fallback})`, reading(policyOf));
}

/** `--policies`: several, a row for each; `more` is said behind that. */
export function policies(fallback: readonly string[], more = ""): Option {
  const read = reading((text) => text.split(",").map(policyOf));
  return option("--policies <a,b>", `when W runs, a row for each: ${policyHelp}${more}`, read, fallback);
}

/** `--width`. */
export function width(most: number): Option {
  return option("--width <k>", `micro-batches that one W concatenates, 1 to ${most} (default: 1)`, integer(1, most));
}

/** `--samples`, `usual` in words where it is no fixed number. */
export function samples(usual: number | string): Option {
  const what = "samples in a micro-batch, 1 to 65536";
  if (typeof usual === "number") return option("--samples <n>", what, integer(1, 65_536), usual);
  return option("--samples <n>", `${what} (default: ${usual})`, integer(1, 65_536));
}

/** `--repeats`: `what` is repeated. */
export function repeats(what: string, fallback: number): Option {
  return option("--repeats <n>", `${what}, 1 to 10000`, integer(1, 10_000), fallback);
}

/** `--quiet-check`. */
export function quietCheck(): Option {
  return option(
    "--quiet-check",
    "look for a second how busy the machine is, say so and note it in the results; the run goes on",
  );
}

/** `--seed`. */
export function seed(): Option {
  return option("--seed <n>", "seed of parameters and batches", integer(0, 2 ** 31), 1);
}

/** `--precision`. */
export function precision(): Option {
  return option("--precision <name>", "f32, or mixed: f16 with f32 master weights", oneOf(precisions), "f32");
}

const recomputeHelp = "none, activations, derivatives or both, perhaps with :N for the first N layers of a stage";

/** `--recompute`. */
export function recompute(): Option {
  return option("--recompute <what>", `what to recompute: ${recomputeHelp}`, reading(parseRecompute), "none");
}

/** `--recompute-ahead`. */
export function recomputeAhead(): Option {
  return new Option("--recompute-ahead", "recompute while a gradient is on its way, not when it has come");
}

/** `--split-stages`. */
export function splitStages(): Option {
  return new Option("--split-stages <k>", "cut each stage into so many on its rank: their W run at times of their own")
    .argParser(integer(1, 64));
}

/** `--recompute` with several kinds, a row for each. */
export function recomputes(): Option {
  const read = reading((text) => text.split(",").map(parseRecompute));
  return option("--recompute <a,b>", `what to recompute, a row for each: ${recomputeHelp}`, read, ["none"]);
}

const sumsHelp = "who makes sums that only a delayed W reads: i, w, or one for each stage as in i/w";

/** `--sums`. */
export function sums(): Option {
  return option("--sums <who>", sumsHelp, reading(parseSums), "i");
}

/** `--sums` with several makers, a row for each. */
export function severalSums(): Option {
  const read = reading((text) => text.split(",").map(parseSums));
  return option("--sums <a,b>", `${sumsHelp}; a row for each`, read, ["i"]);
}

/** `--data`. */
export function data(): Option {
  const images = "for ResNet a folder of class folders with PNG or JPEG images";
  return option(
    "--data <file>",
    `to train on: a text, or ${images} (default: this project's sources, or synthetic images)`,
  );
}

/** `--json`. */
export function json(what = "the results"): Option {
  return option("--json <file>", `write ${what} as JSON; - for standard output`);
}

/** `--html`. */
export function html(what = "figures and tables"): Option {
  return option("--html <file>", `write a page with ${what}; - for standard output`);
}

/** `--out`. */
export function out(): Option {
  return option(
    "--out <folder>",
    "write everything into a new folder: report.json, a page, tables as .csv, .md and .tex, figures as .svg, .pdf and .png",
  );
}

/** `--csv`. */
export function csv(): Option {
  return option("--csv <file>", "write the schedule as PyTorch's CSV; - for standard output");
}
