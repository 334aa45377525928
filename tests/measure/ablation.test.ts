import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { type AblationOptions, type AblationReport, measureAblation } from "../../lib/measure/ablation/measure.ts";
import { ladder, rungNames, rungPair } from "../../lib/measure/ablation/ladder.ts";
import { type LadderCosts, predictAblation } from "../../lib/measure/ablation/prediction.ts";
import { weightTime } from "../../lib/schedules/price/weight_time.ts";
import { problemsOf } from "../../lib/measure/calibrate.ts";
import type { MeasuredStage } from "../../lib/measure/costs.ts";
import { llama } from "../../lib/models/llama.ts";
import { createModel } from "../../lib/models/registry.ts";
import { type AnyOperation, observeProblems } from "../../lib/ops/choice.ts";
import {
  ablationFigure,
  ablationNotes,
  ablationPredictionTable,
  ablationSections,
  ablationTable,
  stallTable,
} from "../../lib/report/ablation.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import type { StepOptions } from "../../lib/runtime/step.ts";
import { textSource } from "../../lib/train/data.ts";
import { sgd } from "../../lib/train/optimizers.ts";

let sets: Record<"real" | "virtual", DeviceSet>;
before(async () => {
  sets = { real: await openDevices(2), virtual: await openDevices(4, { virtual: true }) };
});
after(() => Object.values(sets).forEach((set) => set.close()));

const optimizer = sgd({ learningRate: 0.01 });
const model = llama("tiny", { vocabulary: 257, width: 16, blocks: 4, heads: 2, hidden: 16, length: 16 });
const source = () => textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 16, seed: 1 });

const close = (actual: number, expected: number, what: string) =>
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.abs(expected), `${what}: ${actual} instead of ${expected}`);

test("the ladder adds one thing after the other, and leaves out what a schedule or a model does not have", async () => {
  const rungsOf = async (name: string, schedule: string, software = true, subgroupSize = 8) => {
    const [{ gpu }] = dryDevices(1, { software, subgroupSize });
    const problems = await problemsOf(createModel(name), 1, gpu);
    return ladder({ schedule, devices: 4, info: gpu.info, problems, stallMs: 3 });
  };
  const rungs = await rungsOf("llama-tiny", "1f1b-1");
  assert.deepEqual(rungs.map(({ name, candidates, stall }) => [name, candidates, stall]), [
    ["bubble", ["attention_subgroup"], undefined],
    ["concatenation", ["attention_subgroup"], undefined],
    ["per-sample products", ["per-sample", "attention_subgroup"], undefined],
    ["stored scores", ["per-sample", "composed"], undefined],
    ["stall", ["per-sample", "composed"], { rank: 3, ms: 3 }],
  ]);
  assert.equal((await rungsOf("llama-tiny", "1f1b-1", false))[0].candidates![0], "attention_workgroup");
  const namesOf = async (...args: Parameters<typeof rungsOf>) => (await rungsOf(...args)).map(({ name }) => name);
  const without = (...names: string[]) => rungNames.filter((name) => !names.includes(name));
  assert.deepEqual(await namesOf("llama-tiny", "naive"), without("concatenation"));
  assert.deepEqual(await namesOf("llama-tiny", "1f1b-1", true, 0), without("stored scores"), "no subgroups");
  assert.deepEqual(await namesOf("resnet-tiny", "gpipe"), without("stored scores"));
  assert.deepEqual(await namesOf("mamba-tiny", "1f1b-2"), without("stored scores"));
});

/** Stages that are all alike, on so many ranks. */
function alike(stage: MeasuredStage, ranks = 4, optimizer = 0): LadderCosts {
  const costs = { stages: Array.from({ length: ranks }, () => stage), optimizer: Array(ranks).fill(optimizer) };
  const rungs = (["bubble", "concatenation", "stall"] as const).map((name) => ({ name, costs }));
  return { rungs, hostMs: 0, messageMs: 0 };
}
const equal: MeasuredStage = { f: 1, i: 1, b: 2, w: { 1: 1, 2: 2, 3: 3 } };

test("with equal costs the bubble gives the closed form, concatenation nothing, and a stall what it adds to the last rank", () => {
  for (const [devices, bubble] of [[4, 21 / 15], [8, 45 / 31], [16, 93 / 63]]) {
    const { rungs, needed, stalls, measuredStages } = predictAblation(alike(equal), {
      schedule: "1f1b-1",
      devices,
      stallMs: 0.5,
    });
    assert.equal(measuredStages, devices === 4);
    const work = 3 * devices + devices - 1; // with 2BP
    close(rungs[0].gain, bubble, "bubble");
    close(rungs[1].factor, 1, "concatenation");
    // Each of the M backwards of the last rank is on the way of the longest path.
    close(rungs[2].gain, bubble + devices * 0.5 / work, "stall");
    close(rungs[2].factor, 1 + devices * 0.5 / (6 * devices - 3), "stall's factor");
    for (const { ms, share, gain } of stalls) {
      close(gain, bubble + devices * ms / work, `${share} of a B`);
      close(ms, 2 * share, "a B takes 2");
    }
    close(needed.ms, (1.7 - bubble) * work / devices, "needed");
    close(needed.gain, 1.7, "reached");
  }
  // 21 without 2BP and 15 with: (21 + 4 x 1.125) / 15.
  close(
    predictAblation(alike(equal), { schedule: "1f1b-1", devices: 4, stallMs: 0 }).needed.share,
    1.125 / 2,
    "of a B",
  );
});

test("host, messages and optimizer are part of a prediction, and a gain that is there needs no stall", () => {
  const naive = (costs: LadderCosts) => predictAblation(costs, { schedule: "naive", devices: 4, stallMs: 0 });
  // One micro-batch goes down and up: 4 F, 4 B, 6 messages; with 2BP the last W of four, on rank 0, comes after 4 I.
  const { gain } = naive({ ...alike(equal, 4, 7), hostMs: 0.5, messageMs: 2 }).rungs[0];
  close(gain, (4 * 1.5 + 4 * 2.5 + 6 * 2 + 7) / (4 * 1.5 + 4 * 1.5 + 1.5 + 6 * 2 + 7), "naive");
  const { needed } = naive(alike({ f: 0.1, i: 0.1, b: 10.1, w: { 1: 10 } }));
  assert.equal(needed.ms, 0);
  assert.ok(needed.gain > 1.7);
});

test("for another number of ranks each stage is like an inner one, and a W that was not measured like its neighbours", () => {
  const odd: MeasuredStage = { f: 100, i: 100, b: 200, w: { 1: 100 } };
  const costs = { stages: [odd, equal, equal, odd], optimizer: [9, 1, 1, 9] };
  const ladder: LadderCosts = { rungs: [{ name: "bubble", costs }], hostMs: 0, messageMs: 0 };
  const { rungs } = predictAblation(ladder, { schedule: "1f1b-1", devices: 8, stallMs: 0 });
  close(rungs[0].gain, (45 + 1) / (31 + 1), "with the optimizer of an inner rank");
  const points = [[2, 6], [4, 10]] as const;
  assert.deepEqual([1, 2, 3, 4, 8].map((width) => weightTime(Object.fromEntries(points), width)), [3, 6, 8, 10, 20]);
});

test("a prediction refuses what it cannot be made of", () => {
  const costs = alike(equal), options = { schedule: "1f1b-1", devices: 4, stallMs: 1 };
  assert.throws(() => predictAblation({ ...costs, rungs: [] }, options), /the rungs must be a list of one or more/);
  assert.throws(
    () => predictAblation(costs, { ...options, devices: 0 }),
    /devices must be a whole number, 1 or more, not 0/,
  );
  assert.throws(
    () => predictAblation(costs, { ...options, stallMs: -1 }),
    /stallMs must be a finite number, 0 or more/,
  );
  for (const schedule of ["zb-v", "zb-h1", "interleaved-1f1b"]) {
    assert.throws(
      () => rungPair("bubble", schedule, 4),
      new RegExp(`stage a rank, naive, gpipe, 1f1b-1, 1f1b-2, 1f1b; ${schedule} is none$`),
    );
  }
});

/** A tiny ablation, and of each step its stall and the candidates that one weight gradient and the attention took. */
async function tinyRun(set: DeviceSet, options: Pick<AblationOptions, "schedule" | "stallMs" | "repeats">) {
  const pipeline = createPipeline(set, model, { optimizer });
  const steps: [schedule: string, stall: number | undefined, matmul: string, attention: string][] = [];
  const [{ gpu }] = set.devices;
  const { step } = pipeline;
  const chosen = (operation: AnyOperation, problem: unknown) => operation.choose(gpu, problem).name;
  const watched = Object.assign({ ...pipeline }, {
    async step(...args: Parameters<typeof step>) {
      let result!: Awaited<ReturnType<typeof step>>;
      const names: Record<string, string> = {};
      const seen = await observeProblems(gpu, async () => {
        result = await step(...args);
        for (const { operation, problem } of await problems) {
          const isWeight = operation.name === "matmul" && (problem as { sampleRows?: number }).sampleRows === 16;
          if (isWeight || operation.name === "attention") names[operation.name] = chosen(operation, problem);
        }
      });
      assert.ok(seen.length > 0);
      const { stall } = args[2] as StepOptions;
      steps.push([args[0].policy ?? "without", stall?.ms, names.matmul, names.attention]);
      return result;
    },
  });
  const problems = problemsOf(model, 1, gpu);
  await problems;
  const start = performance.now();
  const report = await measureAblation(set, watched, { ...options, source: source(), samples: 2 });
  const elapsed = performance.now() - start;
  const after = await problems;
  for (const { operation, problem } of after) {
    assert.equal(chosen(operation, problem), operation.usual(gpu.info, problem).name);
  }
  pipeline.close();
  return { report, steps, elapsed };
}

function assertReport(report: AblationReport) {
  const { rungs, remains } = report;
  let product = 1;
  for (const [at, { stepMs, slower, gain, factor, predicted, predictedFactor }] of rungs.entries()) {
    product *= factor.median;
    close(product, gain.median, "the product of the factors");
    for (
      const value of [...stepMs, ...slower, gain, factor].flatMap(({ median, quartiles }) => [median, ...quartiles])
    ) {
      assert.ok(value > 0 && Number.isFinite(value));
    }
    assert.ok(predicted > 0);
    close(predictedFactor, at > 0 ? predicted / rungs[at - 1].predicted : predicted, "predicted factor");
  }
  close(product * remains, 1.7, "what remains");
  const columns = ablationTable(report);
  assert.equal(columns.rows.length, rungs.length);
  for (const table of [columns, ablationPredictionTable(report), stallTable(report)]) {
    for (const row of table.rows) assert.equal(row.length, table.columns.length);
  }
  assert.equal(ablationFigure(report).data.length, 4);
  assert.equal(ablationSections(report).length, 3);
}

test("an ablation on virtual devices takes all rungs in turn, each as it says, and composes the stall", async () => {
  const { report, steps, elapsed } = await tinyRun(sets.virtual, { schedule: "1f1b-1", stallMs: 2000, repeats: 2 });
  assertReport(report);
  const { rungs, absent, predictions, costs, stall, equalCosts } = report;
  assert.deepEqual(rungs.map(({ name }) => name), [...rungNames]);
  assert.deepEqual(absent, []);
  close(equalCosts, 1.4, "equal costs");
  const round = [
    ["without", "fused"],
    ["without", "fused"],
    ["per-sample", "fused"],
    ["per-sample", "composed"],
    ["per-sample", "composed"],
  ].flatMap((each) => [each, each]);
  assert.equal(steps.length, 3 * round.length);
  for (const [index, [schedule, ms, matmul, attention]] of steps.entries()) {
    const [product, way] = round[index % round.length];
    assert.equal(schedule, index % 2 ? "paper" : "without");
    assert.equal(ms, undefined, "the stall is composed");
    assert.equal(matmul === "per-sample", product === "per-sample", `step ${index}: ${matmul}`);
    assert.equal(attention === "composed", way === "composed", `step ${index}: ${attention}`);
  }
  const [without, split] = rungs[4].stepMs;
  assert.ok(without.quartiles[0] >= 4 * 2000 && split.quartiles[1] < 2000, `${without.median} ms, ${split.median} ms`);
  assert.ok(elapsed < 3 * 4 * 2000, `nobody stood still: ${elapsed} ms`);
  assert.deepEqual(predictions.map(({ devices, measuredStages }) => [devices, measuredStages]), [
    [4, true],
    [8, false],
    [16, false],
  ]);
  close(stall.share, 2000 / costs!.rungs[3].costs.stages[3].b, "in shares of a B");
  const again = predictAblation(JSON.parse(JSON.stringify(costs)), { schedule: "1f1b-1", devices: 4, stallMs: 2000 });
  assert.deepEqual(again, predictions[0], "plain data");
  const notes = ablationNotes(report).join("\n");
  for (
    const words of ["Known: the 2BP paper (arXiv 2405.18047)", "Ours, measured (virtual devices, 2 rounds", "Open: "]
  ) {
    assert.ok(notes.includes(words), words);
  }
});

test("an ablation on real devices really stands still, without 2BP alone", async () => {
  const { report, steps } = await tinyRun(sets.real, { schedule: "naive", stallMs: 150, repeats: 1 });
  assertReport(report);
  assert.deepEqual(report.absent, ["concatenation"]);
  assert.deepEqual(steps.map(([, ms]) => ms), [0, 1].flatMap(() => [...Array(6).fill(undefined), 150, undefined]));
  const { stepMs: [without, split] } = report.rungs[3];
  assert.ok(without.median >= 150 && split.median < without.median);
  assert.ok(ablationNotes(report).some((note) => note.startsWith('No rung "+ concatenated W"')));
});

test("an ablation refuses its options before anything runs", async () => {
  const pipeline = createPipeline(sets.real, model, { optimizer });
  const good: AblationOptions = { schedule: "naive", repeats: 1, stallMs: 1, samples: 1, source: source() };
  const cases: [Partial<Record<keyof AblationOptions | "stall", unknown>>, RegExp][] = [
    [{ repeats: 0 }, /^UserError: measureAblation: repeats must be a whole number, 1 or more, not 0$/],
    [{ stallMs: -1 }, /^UserError: measureAblation: stallMs must be a finite number, 0 or more, not -1$/],
    [{ predict: [0] }, /^UserError: measureAblation: predict must be a list of one or more, each a whole number/],
    [{ stall: 1 }, /^UserError: measureAblation: there is no "stall"; there are /],
    [{ schedule: "zb-v" }, /^UserError: An ablation takes a schedule of whole backwards .*; zb-v is none$/],
    [{ schedule: "foo" }, /^UserError: Unknown schedule "foo"; /],
    [{ samples: 0 }, /samples must be a whole number, 1 or more, not 0$/],
  ];
  for (const [wrong, message] of cases) {
    await assert.rejects(measureAblation(sets.real, pipeline, { ...good, ...wrong } as AblationOptions), message);
  }
  pipeline.close();
});
