/** The worker that trains on the visitor's GPU: a script of its own, which is started when somebody wants it. */
import { reasonOf, UserError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { type PairSample, startMeasurement, type StepSample } from "../measure/measurement.ts";
import { llama, llamaConfigurations } from "../models/llama.ts";
import { partition } from "../runtime/partition.ts";
import { createPipeline } from "../runtime/pipeline.ts";
import { simulate } from "../schedules/price/simulate.ts";
import { textSource } from "../train/data.ts";
import { adamw } from "../train/optimizers.ts";
import { describe, findAdapter, nameOf, openOwn } from "./own_gpu.ts";
import type { MeasuredStep, Run, RunAnswer, RunOrder, RunReport } from "./run_messages.ts";
import { grainOf } from "./timestamps.ts";

/** The texts that are there anyway: this project's kernels. */
declare const kernelTexts: Readonly<Record<string, string>>;
/** What the page was made of. */
declare const builtFrom: Pick<RunReport["machine"], "twobp" | "commit">;
const data = "the WGSL of this project's kernels, bytes as tokens", seed = 1;

/** The part of a worker's global scope that is needed: the page's types know it as a window. */
interface Scope {
  onmessage: ((event: { data: RunOrder }) => void) | null;
  postMessage(answer: RunAnswer): void;
}

/** Thrown from within a run that is stopped before anything was counted. */
const stopped = Symbol("stopped");
const scope = globalThis as unknown as Scope;
let isStopped = false;

scope.onmessage = ({ data: order }) => {
  if (order === "stop") isStopped = true;
  else if (order === "look") void answering(look);
  else void answering(() => train(order));
};

async function answering(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (error === stopped) return scope.postMessage({ over: "stopped" });
    const refused = error instanceof UserError ? error.message : `The run failed: ${reasonOf(error)}`;
    scope.postMessage({ refused });
  }
}

async function look(): Promise<void> {
  try {
    const adapter = await findAdapter();
    scope.postMessage({ gpu: { name: nameOf(adapter), software: Boolean(adapter.info.isFallbackAdapter) } });
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    scope.postMessage({ missing: error.message });
  }
}

async function train({ pair, repeats, samples }: Run): Promise<void> {
  isStopped = false;
  const name = "llama-tiny", model = llama(name, llamaConfigurations[name]);
  const { base: { placement, actions } } = pair;
  partition(model, placement); // refuses more stages than it has layers
  const adapter = await findAdapter(), set = await openOwn(adapter, actions.length);
  try {
    const text = new TextEncoder().encode(Object.values(kernelTexts).join("\n"));
    const of = 2 * (repeats + 1);
    let taken = 0, counted = 0, grain = 0;
    const measurement = startMeasurement(
      set,
      (placement) => createPipeline(set, model, { optimizer: adamw({ learningRate: 2e-3 }), placement, seed }),
      {
        pairs: [pair],
        source: textSource(text, { length: model.configuration.length, seed }),
        samples,
        onStep(loss) {
          scope.postMessage({ taken: ++taken, of, loss });
          if (isStopped && counted === 0) throw stopped;
        },
      },
    );
    try {
      await measurement.open(0);
      while (counted < repeats && !isStopped) {
        const [{ steps }] = await measurement.round();
        counted++;
        const intervals = steps.flatMap((step) => step.intervals!.flat());
        grain = grainOf(intervals.map(({ start, end }) => end - start), grain);
        const report: RunReport = {
          ...measurement.report(),
          ...{ data, seed, machine: machineOf(adapter, set.devices[0]) },
          timestampStepMs: grain,
        };
        scope.postMessage({ report, last: stepsOf(steps) });
      }
    } finally {
      measurement.close();
    }
    scope.postMessage({ over: counted < repeats ? "stopped" : "done" });
  } finally {
    set.close();
  }
}

function machineOf(adapter: GPUAdapter, device: Device): RunReport["machine"] {
  const { userAgent, hardwareConcurrency } = navigator;
  return {
    ...builtFrom,
    runtime: userAgent,
    cores: hardwareConcurrency,
    gpu: describe(adapter, device),
    date: new Date().toISOString(),
  };
}

function stepsOf([without, with2BP]: PairSample["steps"]): [MeasuredStep, MeasuredStep] {
  return [stepOf(without), stepOf(with2BP)];
}

function stepOf({ schedule, costs, ms }: StepSample): MeasuredStep {
  const { spans, criticalPath } = simulate(schedule, costs!), critical = new Set(criticalPath);
  const bars = spans.map((span) => {
    const { rank, index, start, end } = span;
    return { rank, index, start, end, critical: critical.has(span) };
  });
  return { bars, ms };
}
