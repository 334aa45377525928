import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { measureAgreement } from "../../lib/measure/agreement.ts";
import { calibrate, problemsOf } from "../../lib/measure/calibrate.ts";
import { explainGain } from "../../lib/measure/gain.ts";
import { measureGrowth } from "../../lib/measure/growth.ts";
import { measureKernels } from "../../lib/measure/kernels.ts";
import { largestFitting } from "../../lib/measure/largest.ts";
import { predictMemory, reportMemory } from "../../lib/measure/memory.ts";
import { closedForm, joinRuns } from "../../lib/measure/scaling.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { measureThroughput } from "../../lib/measure/throughput.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { plan } from "../../lib/planning/plan.ts";
import { stageWork } from "../../lib/planning/stage_work.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { randomBatch, tiny, tinyModel } from "../runtime/support.ts";

let set: DeviceSet, pipeline: Pipeline;
before(async () => {
  set = await openDevices(2);
  pipeline = createPipeline(set, tinyModel(), { optimizer });
});
after(() => {
  pipeline.close();
  set.close();
});

const optimizer = sgd({ learningRate: 0.1 });
const schedule = generate("1f1b-1", { devices: 2 });
let drawn = 0;
const source = {
  next(samples: number) {
    drawn++;
    return randomBatch(tiny, samples);
  },
};

async function refused(call: () => unknown, message: string | RegExp) {
  await assert.rejects(async () => await call(), { name: "UserError", message });
}

/** Fails unless each value of a field is refused as anything but a whole number of 1 or more. */
async function whole(what: string, call: (value: never) => unknown, values: unknown[] = [0, -1, 1.5, NaN, "2"]) {
  for (const value of values) {
    const shown = typeof value === "string" ? `"${value}"` : value;
    await refused(() => call(value as never), `${what} must be a whole number, 1 or more, not ${shown}`);
  }
}

test("measureThroughput() refuses what it cannot measure before it draws a batch", async () => {
  const pair = (base = schedule, split = twoStage(base)) => ({ base, split });
  const right = { pairs: [pair()], source, samples: 1, repeats: 1 };
  const measure = (options: object) => measureThroughput(set, pipeline, { ...right, ...options });
  await whole("measureThroughput: repeats", (repeats) => measure({ repeats }));
  await whole("measureThroughput: samples", (samples) => measure({ samples }));
  await refused(() => measure({ pairs: [] }), "measureThroughput: pairs must be a list of one or more, not []");
  await refused(
    () => measure({ source: {} }),
    "measureThroughput: source must be an object with next(), not an object",
  );
  await refused(() => measure({ transfer: 3 }), "measureThroughput: transfer must be a function, not 3");
  await refused(
    () => measure({ repeat: 3 }),
    /^measureThroughput: there is no "repeat"; there are pairs, source, samples/,
  );
  const four = generate("gpipe", { devices: 4 });
  const other = "Schedule gpipe is for 4 stages on 4 ranks, the pipeline has 2 on 2";
  await refused(() => measure({ pairs: [pair(), pair(four)] }), other);
  await refused(() => measure({ pairs: [pair(schedule, twoStage(four))] }), other);
  await refused(
    () => measure({ pairs: [pair(schedule, twoStage(generate("gpipe", { devices: 2, microbatches: 4 })))] }),
    "The schedules of a pair must do the same work; 1f1b-1 has 2 micro-batches, gpipe with 2BP 4",
  );
  assert.equal(drawn, 0);
});

test("predictions, reports and plans take whole numbers of samples, stages, devices and micro-batches", async () => {
  const model = tinyModel;
  await whole("predictMemory: samples", (samples) => predictMemory(model(), schedule, samples, { optimizer }));
  await whole("stageMemories: samples", (samples) => stageMemories(model(), { samples, optimizer, stages: 2 }));
  await whole("stageMemories: width", (width) => stageMemories(model(), { samples: 1, optimizer, stages: 2, width }));
  for (const placement of ["0 1", null, [0, -1], [0.5]]) {
    const options = { samples: 1, optimizer, placement: placement as number[] };
    await assert.rejects(stageMemories(model(), options), /^UserError: stageMemories: placement must be/);
  }
  await whole("The number of stages", (stages) => stageMemories(model(), { samples: 1, optimizer, stages }));
  await whole("stageWork: samples", (samples) => stageWork(model(), { samples, stages: 2 }));
  await whole("The number of stages", (stages) => stageWork(model(), { samples: 1, stages }));
  await whole("closedForm: devices", (devices) => closedForm("gpipe", devices));

  const report = (options: object) => reportMemory(model, { schedules: [schedule], samples: 1, optimizer, ...options });
  await whole("reportMemory: samples", (samples) => report({ samples }));
  await refused(() => report({ schedules: [] }), "reportMemory: schedules must be a list of one or more, not []");
  await refused(() => report({ precision: "f16" }), 'reportMemory: precision must be one of "f32", "mixed", not "f16"');
  const four = generate("gpipe", { devices: 4 });
  await refused(
    () => report({ schedules: [schedule, four] }),
    "reportMemory: schedule gpipe is for 4 ranks, the others for 2",
  );
  await refused(
    () => report({ schedules: [four], set }),
    "reportMemory: schedule gpipe is for 4 ranks, the others for 2",
  );
  await refused(
    () => reportMemory(model() as never, { schedules: [schedule], samples: 1, optimizer }),
    "reportMemory: the model must be a function that makes one, not an object",
  );

  const planned = (options: object) => plan(model(), { devices: 2, microbatches: 2, budget: 1e9, ...options });
  for (const field of ["devices", "microbatches", "samples"]) {
    await whole(`plan: ${field}`, (value) => planned({ [field]: value }));
  }
  for (const budget of [0, -1, NaN]) {
    await refused(() => planned({ budget }), `plan: budget must be a number of bytes above 0, not ${budget}`);
  }
  await refused(
    () => planned({ optimizer: adamw }),
    "plan: optimizer must be an OptimizerSpec, as sgd() and adamw() return, not a function",
  );

  const fitting = {
    models: ["llama-tiny"],
    schedules: [schedule],
    samples: 1,
    optimizer,
    bytes: 1e9,
    shared: false,
    software: false,
  };
  await whole("largestFitting: samples", (samples) => largestFitting({ ...fitting, samples }));
  await refused(
    () => largestFitting({ ...fitting, bytes: NaN }),
    "largestFitting: bytes must be a finite number, 0 or more, not NaN",
  );
});

test("calibrate(), measureKernels() and problemsOf() check their patience and sizes", async () => {
  const { devices } = set;
  await whole("calibrate: rounds", (rounds) => calibrate(devices, [], { rounds, cache: false }));
  await whole("measureKernels: rounds", (rounds) => measureKernels(devices[0], [], { rounds }));
  for (const turnMs of [0, -1, NaN, Infinity]) {
    const right = `must be a finite number, above 0, not ${turnMs}`;
    await refused(() => calibrate(devices, [], { turnMs, cache: false }), `calibrate: turnMs ${right}`);
    await refused(() => measureKernels(devices[0], [], { turnMs }), `measureKernels: turnMs ${right}`);
    await refused(
      () => measureKernels(devices[0], [], { ms: turnMs }),
      `measureKernels: ms ${right.replace("turnMs", "ms")}`,
    );
  }
  await refused(
    () => calibrate(devices, [], { cache: true as never }),
    "calibrate: cache must be a folder, or false, not true",
  );
  await refused(
    () => calibrate(devices, [], { round: 3 } as never),
    'calibrate: there is no "round"; there are cache, onProgress, rounds, turnMs',
  );
  const { gpu } = devices[0];
  await whole("problemsOf: samples", (samples) => problemsOf(tinyModel(), samples, gpu));
  await whole("problemsOf: width", (width) => problemsOf(tinyModel(), 1, gpu, { width }));
});

test("runs without a round, a row or a pair are refused", async () => {
  const never = () => assert.fail("it ran");
  await whole("measureAgreement: rounds", (rounds) => measureAgreement(never as never, never as never, rounds));
  const grow = (options: object) =>
    measureGrowth(set, never, schedule, source, { steps: 10, every: 5, samples: 1, ...options });
  for (const field of ["steps", "every", "samples"]) {
    await whole(`measureGrowth: ${field}`, (value) => grow({ [field]: value }));
  }
  await refused(() => grow({ every: 11 }), "measureGrowth: every 11 must not exceed steps 10: there is no row");
  await refused(() => joinRuns([]), "joinRuns: the runs must be a list of one or more, not []");
  await refused(
    () => explainGain(schedule, twoStage(schedule), []),
    "explainGain: the pairs of step times must be a list of one or more, not []",
  );
});
