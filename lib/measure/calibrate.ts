/** Choice of kernels by measurement: which candidate of each operation is fastest on a device, for a model's problems. */
import type { Device } from "../gpu/device.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { dryDevices } from "../gpu/dry.ts";
import { adamw } from "../train/optimizers.ts";
import { type Sums, sumsMakers } from "../layers/sums.ts";
import type { Model } from "../models/model.ts";
import { type Choices, type Observed, observeProblems, setChoices } from "../ops/choice.ts";
import { createPipeline, type Precision, precisionRule } from "../runtime/pipeline.ts";
import { callback, expectFields, expectValue, oneOf, optional, positive, type Rules } from "../rules.ts";
import { generate } from "../schedules/generators/generate.ts";
import { twoStage } from "../schedules/transforms/two_stage.ts";
import { measureCandidates, type ProblemResult } from "./candidates.ts";
import { choiceFolder, choiceKey, readChoices, writeChoices } from "./choice_cache.ts";
import { blankBatch } from "./memory.ts";
import { type Patience, patienceRules } from "./stopwatch.ts";

/** How to calibrate. */
export interface CalibrateOptions extends Patience {
  /** Where results are kept between runs: by default `twobp/choices` in the user's cache folder; false keeps nothing and reads nothing. */
  readonly cache?: string | false;
  /** Called after each problem that was measured. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What came of a calibration. */
export interface Calibration {
  /** What the devices take from now on, by operation and class. */
  readonly choices: Choices;
  /** What was measured just now; problems known from before are not in it. */
  readonly results: readonly ProblemResult[];
  /** Problems whose choice was known already. */
  readonly known: number;
  /** How long it took. */
  readonly ms: number;
}

/**
 * The problems that a training step of `model` has, found by a dry run with micro-batches of `samples`. `like` is the device
 * they will run on; `width`, 1 by default, is the number of micro-batches in a W, and `sums`, "i" by default, who makes the sums that
 * only W reads.
 *
 * @throws {UserError} When `samples` or `width` is no whole number of 1 or more.
 */
export function problemsOf(
  model: Model,
  samples: number,
  like: Gpu,
  options: { width?: number; precision?: Precision; sums?: Sums } = {},
): Promise<Observed[]> {
  expectValue("problemsOf: samples", samples, positive);
  expectFields("problemsOf", options, {
    width: optional(positive),
    precision: optional(precisionRule),
    sums: optional(oneOf(sumsMakers)),
  });
  const { width = 1, precision, sums = "i" } = options;
  const devices = dryDevices(1, like.info);
  const set = {
    mode: "real" as const,
    devices,
    adapter: "no device, shapes only",
    driver: like.info.driver,
    close: () => {},
  };
  const pipeline = createPipeline(set, model, { optimizer: adamw(), precision, sums });
  const base = generate("gpipe", { devices: 1, microbatches: width });
  const batch = blankBatch(model, samples * width);
  return observeProblems(devices[0].gpu, async () => {
    try {
      await pipeline.step(width > 1 || sums === "w" ? twoStage(base, { policy: "end", width }) : base, batch);
    } finally {
      pipeline.close();
    }
  });
}

const rules: Rules<CalibrateOptions> = {
  cache: optional({
    right: "a folder, or false",
    accepts: (value) => value === false || (typeof value === "string" && value !== ""),
  }),
  onProgress: optional(callback),
  ...patienceRules,
};

/**
 * Measures the candidates of every problem on the first device of each kind, and has all devices use the fastest from now
 * on. A candidate that fails to compile or to agree with the reference is dropped. What was measured before on the same
 * hardware, driver and kernels is read from disk instead.
 *
 * ```ts
 * import { createModel, openDevices } from "twobp";
 * import { calibrate, problemsOf } from "twobp/measure";
 *
 * const { devices, close } = await openDevices(1);
 * const problems = await problemsOf(createModel("llama-tiny"), 2, devices[0].gpu);
 * const { results, known, ms } = await calibrate(devices, problems.slice(0, 3));
 * console.log(`${results.length} classes measured, ${known} known, ${ms.toFixed(0)} ms`);
 * close();
 * ```
 *
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export async function calibrate(
  devices: readonly Device[],
  problems: readonly Observed[],
  options: CalibrateOptions = {},
): Promise<Calibration> {
  expectFields("calibrate", options, rules);
  const { cache = choiceFolder() ?? false, onProgress, ...patience } = options;
  const start = performance.now();
  const results: ProblemResult[] = [];
  const all: Record<string, Record<string, string>> = {};
  let known = 0;
  const kinds = new Map<string, Device[]>();
  for (const device of devices) {
    const key = choiceKey(device.gpu.info);
    kinds.set(key, [...kinds.get(key) ?? [], device]);
  }
  for (const [key, alike] of kinds) {
    const choices = { ...(cache ? readChoices(cache, key) : {}) } as Record<string, Record<string, string>>;
    const distinct = new Map(
      problems.filter(({ operation }) => operation.candidates.length > 1)
        .map((each) => [`${each.operation.name} ${each.operation.classOf(each.problem)}`, each]),
    );
    const unknown = [...distinct.values()].filter(({ operation, problem }) => {
      const name = choices[operation.name]?.[operation.classOf(problem)];
      return !operation.candidates.some((each: { name: string }) => each.name === name);
    });
    known += distinct.size - unknown.length;
    for (const [index, observed] of unknown.entries()) {
      const result = await measureCandidates(alike[0], observed, patience);
      choices[result.operation] = { ...choices[result.operation], [result.problemClass]: result.best };
      results.push(result);
      // Operations that are made of this one are measured with its best candidate.
      for (const { gpu } of alike) setChoices(gpu, choices);
      onProgress?.(index + 1, unknown.length);
    }
    for (const { gpu } of alike) setChoices(gpu, choices);
    if (cache && unknown.length > 0) writeChoices(cache, key, choices);
    for (const [name, classes] of Object.entries(choices)) all[name] = { ...all[name], ...classes };
  }
  return { choices: all, results, known, ms: performance.now() - start };
}
