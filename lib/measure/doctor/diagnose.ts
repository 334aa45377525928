/** Looks a machine over: what there is, what works, how fast it is. */
import { reasonOf } from "../../errors.ts";
import { type DeviceSet, openDevices } from "../../gpu/devices.ts";
import { timeTogether } from "../../gpu/separate.ts";
import { type Driver, driverNames, driversHere } from "../../gpu/driver.ts";
import { type FoundDriver, lookAtDriver } from "../../gpu/survey.ts";
import { callback, expectFields, oneOf, optional, type Rules } from "../../rules.ts";
import { firstLine, shown } from "../../text.ts";
import { webGpuVersion } from "../machine.ts";
import { standardProblems } from "../standard_problems.ts";
import type { Depth, Diagnosis } from "./diagnosis.ts";
import { depths } from "./diagnosis.ts";
import { crash, type Facts, findingsOf, worksAt } from "./findings.ts";
import { checkKernels } from "./kernels.ts";
import { measurePassing } from "./passing.ts";
import { measureRates } from "./rates.ts";
import { checkStep } from "./step.ts";
import { lookAround } from "./surroundings.ts";
import { checkValues } from "./values.ts";

/** How to look. */
export interface DiagnoseOptions {
  /** How much: "usual" by default. */
  readonly depth?: Depth;
  /** Drivers that are known to crash the process: they are not tried. */
  readonly crashed?: readonly Driver[];
  /**
   * Called, and waited for, when something is about to be looked at: how much is done, 0 to 1, and what it is. A driver may end the
   * process there.
   */
  readonly onProgress?: (done: number, doing: string) => void | Promise<void>;
}

/** Kernels that a run does not take are compiled for so long at most, unless all are asked for. */
const kernelsMs = 30_000;
/** What is done when each begins, about, by the time it takes; kernels go from theirs to 1. */
const shares = { surroundings: 0, drivers: 0.01, values: 0.03, step: 0.06, together: 0.16, rates: 0.2, kernels: 0.3 };

const rules: Rules<DiagnoseOptions> = {
  depth: optional(oneOf(depths)),
  crashed: optional({
    right: `a list of ${driverNames.join(", ")}`,
    accepts: (value) => Array.isArray(value) && value.every((each) => driverNames.includes(each)),
  }),
  onProgress: optional(callback),
};

type Found = { -readonly [Name in keyof Facts]: Facts[Name] };

/**
 * Finds out what runs on this machine and how well: runtimes, drivers, devices, numbers, kernels, a training step of a pipeline,
 * times; and what to do about what is missing or slow. What `deno task doctor` prints. It takes seconds where `depth` is
 * "quick", else about half a minute, and does not throw where something is wrong with the machine.
 *
 * ```ts
 * import { diagnose } from "twobp/measure";
 * import { diagnosisText } from "twobp/report";
 *
 * const diagnosis = await diagnose({ depth: "quick" });
 * if (!diagnosis.works) console.log("Training does not work here.");
 * console.log(diagnosisText(diagnosis, 100));
 * ```
 *
 * @throws {UserError} On an option out of its range, or an unknown one.
 */
export async function diagnose(options: DiagnoseOptions = {}): Promise<Diagnosis> {
  expectFields("diagnose", options, rules);
  const { depth = "usual", crashed = [], onProgress = () => {} } = options;
  const start = performance.now();
  await onProgress(shares.surroundings, "runtimes and packages");
  const surroundings = await lookAround();
  const drivers: FoundDriver[] = [];
  const look = async (which: readonly Driver[]) => {
    for (const driver of which) {
      await onProgress(shares.drivers, `the driver "${driver}"`);
      drivers.push(crashed.includes(driver) ? { driver, missing: crash, said: [] } : await lookAtDriver(driver));
    }
  };
  const facts: Found = { depth, surroundings, drivers };
  let set: DeviceSet | undefined;
  try {
    await look(driversHere().filter((driver) => driver !== "bundled"));
    await onProgress(shares.drivers, "two devices");
    set = await openTwo().finally(() => look(driversHere().filter((driver) => driver === "bundled")));
    await examine(set, facts, onProgress);
  } catch (error) {
    facts.problem = shown(reasonOf(error).split("\n", 1)[0], 1000).replace(/\.$/, "");
  } finally {
    set?.close();
  }
  return { schema: 1, works: worksAt(facts), ...facts, findings: findingsOf(facts), ms: performance.now() - start };
}

/** Two devices, virtual ones where real ones are refused. */
async function openTwo(): Promise<DeviceSet> {
  try {
    return await openDevices(2);
  } catch (error) {
    const set = await openDevices(2, { virtual: true }).catch(() => {
      throw error;
    });
    return { ...set, notice: reasonOf(error) };
  }
}

async function examine(
  set: DeviceSet,
  facts: Found,
  onProgress: (done: number, doing: string) => void | Promise<void>,
): Promise<void> {
  const [first, second] = set.devices, { gpu } = first;
  const { implementation, software, f16, timestamps, subgroupSize } = gpu.info;
  facts.devices = {
    ...{ implementation, version: webGpuVersion(implementation) },
    ...{ driver: set.driver, adapter: set.adapter, mode: set.mode, software, f16, timestamps, subgroupSize },
    ...set.notice === undefined ? {} : { notice: set.notice },
  };
  await onProgress(shares.values, "numbers");
  facts.values = await checkValues(first);
  await onProgress(shares.step, "training steps");
  facts.step = await checkStep(set);
  /** What a probe finds; one that fails leaves the others alone. */
  const attempt = async <T>(what: string, probe: () => Promise<T>): Promise<T | undefined> => {
    try {
      return await probe();
    } catch (error) {
      set.devices.forEach((device) => device.abandon());
      facts.failures = [...facts.failures ?? [], { what, problem: firstLine(error) }];
    }
  };
  await onProgress(shares.together, "two devices at once");
  if (set.mode === "real") facts.together = await attempt("Work at once", () => timeTogether(first, second));
  facts.passing = await attempt("Transfers", () => measurePassing(first, second));
  if (facts.depth === "quick") return;
  await onProgress(shares.rates, "rates");
  facts.rates = await attempt("Rates", () => measureRates(first));
  const problems = await standardProblems(gpu, "f32", "small");
  if (f16) problems.push(...await standardProblems(gpu, "f16", "small"));
  facts.kernels = await checkKernels(first, problems, {
    ...facts.depth === "all" ? { all: true } : { limitMs: kernelsMs },
    onProblem: (share, operation) =>
      onProgress(shares.kernels + (1 - shares.kernels) * share, `kernels of ${operation}`),
  });
}
