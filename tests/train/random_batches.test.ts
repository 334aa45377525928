/** Random batches and options, right and wrong ones: either refused before anything runs, or done as the reference does it. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../lib/errors.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import { blankBatch } from "../../lib/measure/memory.ts";
import { bert, type BertConfiguration } from "../../lib/models/bert.ts";
import { llama, type LlamaConfiguration } from "../../lib/models/llama.ts";
import { mamba } from "../../lib/models/mamba.ts";
import { targetsOf } from "../../lib/models/model.ts";
import { resnet, type ResnetConfiguration } from "../../lib/models/resnet.ts";
import { createPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { release, toArray } from "../../lib/tensor.ts";
import { checkBatch } from "../../lib/train/check_batch.ts";
import { type Batch, ignored } from "../../lib/train/data.ts";
import { adamw, type OptimizerSpec, sgd } from "../../lib/train/optimizers.ts";
import { tensor } from "../ops/support.ts";
import { bertLoss } from "../reference/bert.ts";
import * as reference from "../reference/optimizers.ts";

const seed = 12;
let set: DeviceSet;
before(async () => {
  set = await openDevices(2);
});
after(() => set.close());

/** Whether a call throws a UserError; any other error is passed on. */
function refuses(call: () => unknown): boolean {
  try {
    call();
    return false;
  } catch (error) {
    if (error instanceof UserError) return true;
    throw error;
  }
}

/** What a model takes, in words of this test's own. */
interface Sizes {
  inputs: number;
  /** Of ids; 0 for floats. */
  vocabulary: number;
  targets: number;
  classes: number;
  longest: number;
}

const isWhole = (value: unknown, least: number, most: number) =>
  typeof value === "number" && value % 1 === 0 && value >= least && value <= most;

/** Whether a batch fits, element by element and slowly: what `checkBatch` must find too. */
function fits(batch: Batch, sizes: Sizes, microbatches: number): boolean {
  const { samples, inputs, targets, lengths, seed } = batch;
  const among = (array: unknown, kind: unknown, count: number, right: (value: number) => boolean) =>
    (array as Float32Array)?.constructor === kind && (array as Float32Array).length === count &&
    [...array as Float32Array].every(right);
  return isWhole(samples, 1, 1e6) && samples % microbatches === 0 &&
    (seed === undefined || isWhole(seed, 0, 4294967295)) &&
    (sizes.vocabulary > 0
      ? among(inputs, Uint32Array, samples * sizes.inputs, (id) => id < sizes.vocabulary)
      : among(inputs, Float32Array, samples * sizes.inputs, Number.isFinite)) &&
    among(targets, Uint32Array, samples * sizes.targets, (target) => target < sizes.classes || target === ignored) &&
    [...targets].some((target) => target !== ignored) &&
    (lengths === undefined ||
      sizes.longest > 0 && among(lengths, Uint32Array, samples, (length) => length >= 1 && length <= sizes.longest));
}

const odd = fc.constantFrom(NaN, Infinity, -Infinity, -1, 0, 1, 0.5, 7, 2 ** 31, 2 ** 32 - 100, ignored, 2 ** 32, 1e39);

type Arrays = "inputs" | "targets" | "lengths";
type Damage = (batch: Batch) => Batch;

/** One thing that may make a batch wrong, or not. */
function damageOf({ vocabulary, classes, longest }: Sizes): fc.Arbitrary<Damage> {
  const which = fc.constantFrom<Arrays>("inputs", "targets", "lengths");
  const edges: Record<Arrays, number[]> = {
    inputs: [vocabulary - 1, vocabulary],
    targets: [classes - 1, classes, 2 ** 32 - 100, ignored],
    lengths: [0, longest, longest + 1],
  };
  const value = which.chain((name) =>
    fc.tuple(fc.constant(name), fc.nat(1000), fc.oneof(odd, fc.constantFrom(...edges[name])))
  );
  return fc.oneof(
    value.map(([name, index, value]): Damage => (batch) => {
      const array = batch[name]?.slice() as Uint32Array | undefined;
      if (!array) return batch;
      array[index % array.length] = value;
      return { ...batch, [name]: array };
    }),
    fc.tuple(which, fc.constantFrom(-1, 1, 3)).map(([name, more]): Damage => (batch) => {
      const array = batch[name] as Uint32Array | undefined;
      if (!ArrayBuffer.isView(array)) return batch;
      const longer = new (array.constructor as Uint32ArrayConstructor)(Math.max(0, array.length + more));
      longer.set(array.subarray(0, longer.length));
      return { ...batch, [name]: longer };
    }),
    fc.tuple(which, fc.constantFrom(Float32Array, Float64Array, Int32Array, Uint8Array, Uint32Array, Array))
      .map(([name, Kind]): Damage => (batch) => {
        const array = batch[name] as Uint32Array | undefined;
        return array ? { ...batch, [name]: (Kind as typeof Float32Array).from(array) } : batch;
      }),
    fc.tuple(fc.constantFrom("samples", "seed"), fc.oneof(odd, fc.constantFrom(2, 4)))
      .map(([name, value]): Damage => (batch) => ({ ...batch, [name]: value })),
    fc.boolean().map((all): Damage => (batch) => ({
      ...batch,
      targets: batch.targets.map((target, i) => all || i % 2 ? ignored : target),
    })),
    fc.constant<Damage>(({ lengths: _, ...batch }) => batch),
  );
}

/** A batch that fits, and up to two things done to it. */
function batchOf(sizes: Sizes): fc.Arbitrary<Batch> {
  const { inputs, vocabulary, targets, classes, longest } = sizes;
  const below = (count: number, limit: number) =>
    fc.array(fc.nat(limit - 1), { minLength: count, maxLength: count }).map((values) => Uint32Array.from(values));
  const right = fc.integer({ min: 1, max: 3 }).map((half) => 2 * half).chain((samples) =>
    fc.record({
      samples: fc.constant(samples),
      inputs: vocabulary > 0 ? below(samples * inputs, vocabulary) : fc.float32Array({
        minLength: samples * inputs,
        maxLength: samples * inputs,
        noNaN: true,
        noDefaultInfinity: true,
      }),
      targets: below(samples * targets, classes),
      seed: fc.nat(2 ** 31 - 1),
      ...longest > 0 ? { lengths: below(samples, longest).map((lengths) => lengths.map((length) => length + 1)) } : {},
    })
  );
  return fc.tuple(right, fc.array(damageOf(sizes), { maxLength: 2 })).map(([batch, damages]) =>
    damages.reduce((damaged, damage) => damage(damaged), batch as Batch)
  );
}

const text = { vocabulary: 19, width: 8, blocks: 1, length: 5 };
const small: BertConfiguration = {
  ...{ ...text, mask: 18, heads: 2, hidden: 8 },
  ...{ positions: 6, types: 2, dropout: 0.2 },
};
const language: Sizes = { inputs: 5, vocabulary: 19, targets: 5, classes: 19, longest: 0 };
const image: ResnetConfiguration = { block: "basic", blocks: [1], width: 4, stem: "3x3", size: 4, classes: 3 };
const cases = [
  [llama("llama", { ...text, heads: 2, hidden: 8 }), language],
  [mamba("mamba", { ...text, state: 4, expand: 2, rank: 2 }), language],
  [bert("bert", small), { ...language, longest: 5 }],
  [resnet("resnet", image), { inputs: 48, vocabulary: 0, targets: 1, classes: 3, longest: 0 }],
] as const;

for (const [model, sizes] of cases) {
  test(`checkBatch() refuses what does not fit ${model.name}, and nothing else`, () => {
    let [right, wrong] = [0, 0];
    fc.assert(
      fc.property(batchOf(sizes), (batch) => {
        const expected = fits(batch, sizes, 2);
        assert.equal(refuses(() => checkBatch(model, batch, 2)), !expected);
        if (expected) {
          assert.equal(
            checkBatch(model, batch, 2),
            batch.targets.filter((each) => each !== ignored).length,
          );
        }
        if (expected) right++;
        else wrong++;
      }),
      { seed, numRuns: 400 },
    );
    assert.ok(right > 80 && wrong > 80, `${right} batches fit, ${wrong} do not: the test looks at one side only`);
  });
}

/** What was handed to the queues of the set's devices while `run` ran. */
async function workDuring(run: () => Promise<unknown>): Promise<{ work: number; error: unknown }> {
  let work = 0;
  const queues = new Set(set.devices.map(({ gpu }) => gpu.queue));
  for (const queue of queues) {
    for (const name of ["submit", "writeBuffer"] as const) {
      const call = queue[name].bind(queue) as (...values: unknown[]) => void;
      Object.defineProperty(queue, name, {
        configurable: true,
        value(...values: unknown[]) {
          work++;
          call(...values);
        },
      });
    }
  }
  try {
    return await run().then(() => ({ work, error: undefined }), (error) => ({ work, error }));
  } finally {
    for (const queue of queues) for (const name of ["submit", "writeBuffer"]) Reflect.deleteProperty(queue, name);
  }
}

test("a step on a random batch is refused with nothing run, or has the loss of the model in float64", async () => {
  const pipeline: Pipeline = createPipeline(set, bert("bert", small), {
    optimizer: sgd({ learningRate: 0.1 }),
    seed: 3,
  });
  const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
  const parameters = await pipeline.parameters();
  const inUse = () => set.devices.map(({ ledger }) => ledger.total());
  const before = inUse();
  let [right, wrong] = [0, 0];
  await fc.assert(
    fc.asyncProperty(batchOf({ ...language, longest: 5 }), async (batch) => {
      let loss = NaN;
      const { work, error } = await workDuring(async () => {
        loss = (await pipeline.step(schedule, batch, { optimize: false })).loss;
      });
      assert.deepEqual(inUse(), before);
      if (fits(batch, { ...language, longest: 5 }, 2)) {
        right++;
        assert.equal(error, undefined);
        assert.ok(work > 0);
        const expected = bertLoss(small, parameters, batch);
        assert.ok(Math.abs(loss - expected) < 1e-5 * expected, `loss ${loss} instead of ${expected}`);
      } else {
        wrong++;
        assert.ok(error instanceof UserError, `${error}`);
        assert.match(error.message, /^[^\n]{20,250}$/);
        assert.equal(work, 0);
      }
    }),
    { seed, numRuns: 60 },
  );
  assert.ok(right > 10 && wrong > 10, `${right} batches fit, ${wrong} do not`);
  assert.deepEqual(await pipeline.parameters(), parameters);
  pipeline.close();
});

const number = fc.oneof(
  fc.constantFrom(0, 0.5, 0.9, 1, 0.999, -0.1, NaN, Infinity, 1e39, 1e-50, 1e-8, 2, "0.1", null),
  fc.double({ min: 0, max: 1, noNaN: true }),
);
/** An option that is there or not. */
const maybe = (value: fc.Arbitrary<unknown>) => fc.option(value, { nil: undefined });
const finite = (value: unknown) => typeof value === "number" && value >= 0 && value < 3.4e38;
const share = (value: unknown) => typeof value === "number" && value >= 0 && Math.fround(value) < 1;

/** Two updates of eight parameters. */
async function updated(spec: OptimizerSpec, gradients: readonly Float32Array[]): Promise<Float32Array> {
  const [on] = set.devices;
  const parameters = tensor(on, [8], start), gradient = tensor(on, [8], new Float32Array(8));
  const optimizer = spec.create(parameters, gradient, 4);
  for (const values of gradients) {
    on.write(gradient, values);
    optimizer.prepare();
    optimizer.step();
    optimizer.commit();
  }
  const result = await toArray(parameters);
  optimizer.release();
  release(parameters, gradient);
  return result;
}
const start = Float32Array.from({ length: 8 }, (_, i) => Math.cos(i));
const gradients = [1, 2].map((step) =>
  Float32Array.from({ length: 8 }, (_, i) => i === 3 ? 0 : Math.sin(step * i + 0.3))
);

function assertNear(actual: Float32Array, expected: Float64Array) {
  actual.forEach((value, i) => {
    assert.ok(
      Math.abs(value - expected[i]) <= 2e-5 * (1 + Math.abs(expected[i])),
      `${i}: ${value} instead of ${expected[i]}`,
    );
  });
}

test("random options of sgd() are refused, or update as the float64 reference does", async () => {
  let [right, wrong] = [0, 0];
  await fc.assert(
    fc.asyncProperty(maybe(number), maybe(number), fc.boolean(), async (learningRate, momentum, typo) => {
      const options = { learningRate, momentum, ...(typo ? { lr: 0.1 } : {}) } as never;
      if (typo || !finite(learningRate) || !(momentum === undefined || share(momentum))) {
        wrong++;
        return assert.ok(refuses(() => sgd(options)));
      }
      right++;
      const expected = Float64Array.from(start), velocity = new Float64Array(8);
      for (const each of gradients) {
        reference.sgd(expected, velocity, each, learningRate as number, (momentum ?? 0) as number);
      }
      assertNear(await updated(sgd(options), gradients), expected);
    }),
    { seed, numRuns: 100 },
  );
  assert.ok(right > 10 && wrong > 30, `${right} options are right, ${wrong} wrong`);
});

test("random options of adamw() are refused, or update as the float64 reference does", async () => {
  let [right, wrong] = [0, 0];
  // Half of them right throughout, or with so many options hardly any would be.
  const good = fc.double({ min: 0, max: 0.99, noNaN: true });
  const above = fc.double({ min: 1e-8, max: 1, noNaN: true });
  const one = (likely: fc.Arbitrary<unknown>) =>
    maybe(fc.oneof({ weight: 4, arbitrary: likely }, { weight: 1, arbitrary: number }));
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        learningRate: one(good),
        betas: maybe(fc.oneof(
          { weight: 6, arbitrary: fc.tuple(good, good) },
          { weight: 1, arbitrary: fc.array(number, { maxLength: 3 }) },
        )),
        epsilon: one(above),
        weightDecay: one(good),
      }),
      async (given) => {
        const { learningRate = 1e-3, betas = [0.9, 0.999], epsilon = 1e-8, weightDecay = 0.01 } = given;
        const fitting = finite(learningRate) && finite(weightDecay) && finite(epsilon) &&
          (epsilon as number) >= 2 ** -126 && (betas as unknown[]).length === 2 && (betas as unknown[]).every(share);
        if (!fitting) {
          wrong++;
          return assert.ok(refuses(() => adamw(given as never)));
        }
        right++;
        const state = {
          ...{ learningRate, betas, epsilon, weightDecay } as reference.AdamWState,
          ...{ mean: new Float64Array(8), square: new Float64Array(8), steps: 0 },
        };
        const expected = Float64Array.from(start);
        for (const each of gradients) reference.adamw(expected, each, 4, state);
        assertNear(await updated(adamw(given as never), gradients), expected);
      },
    ),
    { seed, numRuns: 120 },
  );
  assert.ok(right > 30 && wrong > 30, `${right} options are right, ${wrong} wrong`);
});

test("a random LLaMa or ResNet configuration is refused, or makes a model that takes its own batches", () => {
  const wrongCount = fc.constantFrom(NaN, Infinity, -1, 0, 0.5, 2 ** 60);
  const count = fc.oneof({ weight: 6, arbitrary: fc.integer({ min: 1, max: 6 }) }, {
    weight: 1,
    arbitrary: wrongCount,
  });
  const positive = (value: unknown) => isWhole(value, 1, 100);
  let [right, wrong] = [0, 0];
  const check = (expected: boolean, make: () => ReturnType<typeof llama>) => {
    assert.equal(refuses(make), !expected);
    if (!expected) return void wrong++;
    right++;
    const model = make();
    assert.equal(checkBatch(model, blankBatch(model, 4), 2), targetsOf(model, 4).shape[0]);
  };
  fc.assert(
    fc.property(
      fc.record({
        ...{ vocabulary: count, blocks: count, hidden: count, length: count },
        width: fc.oneof(count, fc.constantFrom(8, 12, 24)),
        heads: count,
        kvHeads: fc.option(count, { nil: undefined }),
      }),
      (configuration) => {
        const { width, heads, kvHeads = heads, ...others } = configuration;
        const expected = [width, heads, kvHeads, ...Object.values(others)].every((value) => isWhole(value, 1, 100)) &&
          width % (2 * heads) === 0 && heads % kvHeads === 0;
        check(expected, () => llama("random", configuration as LlamaConfiguration));
      },
    ),
    {
      seed,
      numRuns: 400,
      examples: [[{ vocabulary: 1, blocks: 1, hidden: 1, length: 1, width: 2, heads: 1, kvHeads: 1 }]],
    },
  );
  assert.ok(right > 10 && wrong > 100, `${right} configurations are right, ${wrong} wrong`);
  [right, wrong] = [0, 0];
  fc.assert(
    fc.property(
      fc.record({
        blocks: fc.array(count, { maxLength: 3 }),
        block: fc.constantFrom("basic", "bottleneck", "basic", "bottleneck", "wide"),
        stem: fc.constantFrom("7x7", "3x3", "3x3", "7x7", ""),
        ...{ width: count, size: count, classes: count },
      }),
      (configuration) => {
        const { blocks, block, stem, ...sizes } = configuration;
        const expected = ["basic", "bottleneck"].includes(block) && ["7x7", "3x3"].includes(stem) &&
          blocks.length > 0 &&
          [...blocks, ...Object.values(sizes)].every(positive);
        check(expected, () => resnet("random", configuration as ResnetConfiguration));
      },
    ),
    { seed, numRuns: 200 },
  );
  assert.ok(right > 10 && wrong > 50, `${right} configurations are right, ${wrong} wrong`);
});
