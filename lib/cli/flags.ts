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
import { scheduleNames } from "../schedules/generators/generate.ts";
import { paperSchedules } from "../schedules/transforms/pair.ts";
import { parsePolicy } from "../schedules/transforms/policy.ts";
import { integer, listOf, oneOf, reading } from "./options.ts";

function flag(flags: string, description: string, read?: (text: string) => unknown, fallback?: unknown): Option {
  const option = new Option(flags, description);
  if (read) option.argParser(read);
  if (fallback === undefined) return option;
  return option.default(fallback, Array.isArray(fallback) ? fallback.join(",") : undefined);
}

/** `--model`; `others` are words that stand for a model besides. */
export function modelFlag(fallback?: string, others: readonly string[] = [], meaning = ""): Option {
  return flag(
    "--model <name>",
    `model: ${modelNames.join(", ")}${meaning}`,
    oneOf([...modelNames, ...others]),
    fallback,
  );
}

/** `--devices`; without it as many as the CSV files among the schedules have rows, or else `usual`. */
export function devicesFlag(least: number, most: number, usual: number): Option {
  const otherwise = `default: ${usual}, or the rows of a CSV file`;
  return flag("--devices <n>", `pipeline ranks, ${least} to ${most} (${otherwise})`, integer(least, most));
}

/** `--microbatches`; `usual` says in words what holds without it. */
export function microbatchesFlag(most: number, usual: string): Option {
  return flag("--microbatches <m>", `micro-batches in a step, 1 to ${most} (default: ${usual})`, integer(1, most));
}

/** `--virtual`. */
export function virtualFlag(): Option {
  return flag(
    "--virtual",
    "run all ranks on one device and compose the step times (default: where devices are too few)",
  );
}

/** `--schedules`: of the zoo, or in CSV files; by default those of the 2BP paper. */
export function schedulesFlag(): Option {
  return flag("--schedules <a,b>", `any of ${scheduleNames.join(", ")}, and CSV files`, listOf(), paperSchedules);
}

const policyHelp = "fill, lean (as fast in less memory, by a heuristic), end, mid, every:K or cap:BYTES";

/** `--policy`; `fallback` says in words what holds without it. */
export function policyFlag(fallback: string): Option {
  return flag("--policy <policy>", `when W runs: ${policyHelp} (default: ${fallback})`, reading(parsePolicy));
}

/** `--policies`: several, a row for each. */
export function policiesFlag(fallback: readonly string[]): Option {
  const read = reading((text) => text.split(",").map(parsePolicy));
  return flag("--policies <a,b>", `when W runs, a row for each: ${policyHelp}`, read, fallback);
}

/** `--width`. */
export function widthFlag(most: number): Option {
  return flag("--width <k>", `micro-batches that one W concatenates, 1 to ${most} (default: 1)`, integer(1, most));
}

/** `--samples`, `usual` in words where it is no fixed number. */
export function samplesFlag(usual: number | string): Option {
  const what = "samples in a micro-batch, 1 to 65536";
  if (typeof usual === "number") return flag("--samples <n>", what, integer(1, 65_536), usual);
  return flag("--samples <n>", `${what} (default: ${usual})`, integer(1, 65_536));
}

/** `--repeats`: `what` is repeated. */
export function repeatsFlag(what: string, fallback: number): Option {
  return flag("--repeats <n>", `${what}, 1 to 10000`, integer(1, 10_000), fallback);
}

/** `--seed`. */
export function seedFlag(): Option {
  return flag("--seed <n>", "seed of parameters and batches", integer(0, 2 ** 31), 1);
}

/** `--precision`. */
export function precisionFlag(): Option {
  return flag("--precision <name>", "f32, or mixed: f16 with f32 master weights", oneOf(precisions), "f32");
}

const recomputeHelp = "none, activations, derivatives or both, perhaps with :N for the first N layers of a stage";

/** `--recompute`. */
export function recomputeFlag(): Option {
  return flag("--recompute <what>", `what to recompute: ${recomputeHelp}`, reading(parseRecompute), "none");
}

/** `--recompute` with several kinds, a row for each. */
export function recomputesFlag(): Option {
  const read = reading((text) => text.split(",").map(parseRecompute));
  return flag("--recompute <a,b>", `what to recompute, a row for each: ${recomputeHelp}`, read, ["none"]);
}

/** `--data`. */
export function dataFlag(): Option {
  const images = "for ResNet a folder of class folders with PNG or JPEG images";
  return flag(
    "--data <file>",
    `to train on: a text, or ${images} (default: this project's sources, or synthetic images)`,
  );
}

/** `--json`. */
export function jsonFlag(what = "the results"): Option {
  return flag("--json <file>", `write ${what} as JSON; - for standard output`);
}

/** `--html`. */
export function htmlFlag(what = "figures and tables"): Option {
  return flag("--html <file>", `write a page with ${what}; - for standard output`);
}

/** `--csv`. */
export function csvFlag(): Option {
  return flag("--csv <file>", "write the schedule as PyTorch's CSV; - for standard output");
}
