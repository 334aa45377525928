/** Memory models of stages against whole steps on shapes: the two are one truth. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { UserError } from "../../lib/errors.ts";
import { blankBatch, dryPipeline, predictMemory } from "../../lib/measure/memory.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { bert, bertConfigurations } from "../../lib/models/bert.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import type { Model } from "../../lib/models/model.ts";
import { createModel } from "../../lib/models/registry.ts";
import type { Precision } from "../../lib/runtime/pipeline.ts";
import type { RecomputeText } from "../../lib/runtime/recompute.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";
import type { Memory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import type { PolicyText, Schedule } from "../../lib/schedules/schedule.ts";
import { wholeBackward } from "../../lib/schedules/transforms/whole.ts";
import { recomputeAhead } from "../../lib/schedules/transforms/recompute_ahead.ts";
import { splitStages } from "../../lib/schedules/transforms/split_stages.ts";
import { search } from "../../lib/schedules/search/search.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";

const policies: PolicyText[] = ["fill", "lean", "end", "mid", "every:2"];
const tiny = ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"];

/** What a model is run as. */
interface Case {
  readonly model: string;
  readonly recompute?: RecomputeText;
  readonly precision?: Precision;
  /** Names of the parameters that are frozen. */
  readonly isFrozen?: (name: string) => boolean;
}

function made({ model, isFrozen }: Case): Model {
  return isFrozen ? frozenModel(createModel(model), isFrozen) : createModel(model);
}

const shape = { samples: 2, optimizer: adamw() };

async function memoryOf({ recompute, precision, ...model }: Case, schedule: Schedule, width: number): Promise<Memory> {
  const { placement } = schedule;
  const stages = await stageMemories(made(model), { ...shape, recompute, precision, placement, width });
  return (stage) => stages[stage];
}

/** What each rank needs in steps that are run with shapes alone, of schedules that are placed as this one. */
async function stepsOf<Result>(
  { recompute, precision, ...model }: Case,
  { placement, actions: { length: devices } }: Schedule,
  use: (neededBy: (schedule: Schedule) => Promise<number[]>) => Promise<Result>,
): Promise<Result> {
  const described = made(model);
  const pipeline = dryPipeline(described, devices, { ...shape, recompute, precision, placement });
  try {
    return await use(async (schedule) => {
      const batch = blankBatch(described, shape.samples * sizesOf(schedule).microbatches);
      return (await pipeline.step(schedule, batch)).peaks.map(({ needed }) => needed);
    });
  } finally {
    pipeline.close();
  }
}

/** The schedule itself, and where its backwards are whole all that policies and widths make of it. */
function variants(
  base: Schedule,
  widths: readonly number[],
  memory: Memory,
  of: readonly PolicyText[] = policies,
): Schedule[] {
  if (sizesOf(base).split) return [base];
  const made = of.flatMap((policy) => widths.map((width) => twoStage(base, { policy, width, memory })));
  return [...new Map([base, ...made].map((schedule) => [JSON.stringify(schedule.actions), schedule])).values()];
}

const described = ({ model, recompute = "none", precision = "f32" }: Case, schedule: Schedule) =>
  `${model} ${recompute} ${precision} ${schedule.name} ${schedule.policy ?? ""} width ${sizesOf(schedule).width}`;

/** On three ranks, or two where each has several stages: no more than the tiny models have layers for. */
function zoo(): Schedule[] {
  return scheduleNames.map((name) => {
    const two = generate(name, { devices: 2 });
    return sizesOf(two).stages > 2 ? two : generate(name, { devices: 3 });
  });
}

for (const [number, model] of tiny.entries()) {
  test(`peakMemory() of the stages of ${model} is what a step needs, to the byte, for every schedule, policy and width`, async () => {
    for (const [at, base] of zoo().entries()) {
      const memory = await memoryOf({ model }, base, 4);
      await stepsOf({ model }, base, async (neededBy) => {
        const isThorough = base.name === "1f1b-2" || base.name === "interleaved-1f1b" && model === "resnet-tiny";
        const [widths, of] = isThorough ? [[1, 2, 4], policies] : [[1, 4], ["lean", "end"] as const];
        const [first, ...splits] = variants(base, widths, memory, of);
        // Of most schedules each policy and width by two models of the four.
        const isRun = (index: number) => isThorough || (index + number + at) % 2 === 0;
        for (const schedule of [first, ...splits.filter((_, index) => isRun(index))]) {
          assert.deepEqual(peakMemory(schedule, memory), await neededBy(schedule), described({ model }, schedule));
        }
      });
    }
  });
}

test("so it is where stages are cut into ranges of layers", async () => {
  for (const [model, name] of [["llama-tiny", "1f1b-2"], ["resnet-tiny", "zb-v"]]) {
    const base = splitStages(generate(name, { devices: 2 }), 2);
    for (const recompute of ["none", "both"] as const) {
      const memory = await memoryOf({ model, recompute }, base, 2);
      await stepsOf({ model, recompute }, base, async (neededBy) => {
        for (const schedule of variants(base, [1, 2], memory, ["fill", "end"])) {
          const what = `${described({ model, recompute }, schedule)} in ranges`;
          assert.deepEqual(peakMemory(schedule, memory), await neededBy(schedule), what);
        }
      });
    }
  }
});

test("so it is where an R runs ahead of a backward, right before it and as early as can be", async () => {
  /** Each R right behind the F of its micro-batch. */
  const asEarly = (schedule: Schedule): Schedule => ({
    ...schedule,
    actions: schedule.actions.map((list) =>
      list.filter(({ kind }) => kind !== "R").flatMap((action) =>
        action.kind === "F" ? [action, { ...action, kind: "R" as const }] : [action]
      )
    ),
  });
  for (const model of tiny) {
    for (const recompute of ["activations", "both:2"] as const) {
      for (const name of ["1f1b-2", "interleaved-1f1b", "zb-v"]) {
        const base = generate(name, { devices: 2 }), memory = await memoryOf({ model, recompute }, base, 1);
        await stepsOf({ model, recompute }, base, async (neededBy) => {
          const whole = recomputeAhead(wholeBackward(base));
          const all = [
            whole,
            asEarly(whole),
            recomputeAhead(base),
            asEarly(base),
            twoStage(whole, { policy: "end", memory }),
          ];
          for (const schedule of all) {
            const expected = await neededBy(schedule);
            assert.deepEqual(peakMemory(schedule, memory), expected, described({ model, recompute }, schedule));
          }
        });
      }
    }
  }
  const wide = twoStage(recomputeAhead(generate("gpipe", { devices: 2 })), { policy: "end", width: 2 });
  const memory = await memoryOf({ model: "llama-tiny", recompute: "activations" }, wide, 2);
  assert.throws(
    () => peakMemory(wide, memory),
    /^UserError: The memory model does not know what an R holds beside a W of several micro-batches, and rank 0 of gpipe has both on stage 0: let each W take one$/,
  );
});

test("of two replicas it is what a step needs with their sums, to the byte", async () => {
  const tried = { "llama-tiny": ["1f1b-1", "interleaved-1f1b", "zb-v"], "resnet-tiny": ["interleaved-1f1b"] };
  for (const [model, names] of Object.entries(tried)) {
    for (const name of names) {
      const base = generate(name, { devices: 2 }), { placement } = base;
      const all = { ...shape, replicas: 2, shardOptimizer: model === "resnet-tiny", placement };
      const stages = await stageMemories(createModel(model), all), memory = (stage: number) => stages[stage];
      assert.ok(stages.every(({ sum = 0 }) => sum > 0));
      const pipeline = dryPipeline(createModel(model), 2, all);
      for (const schedule of variants(base, [1], memory, ["fill", "end"])) {
        const batch = blankBatch(createModel(model), 2 * shape.samples * sizesOf(schedule).microbatches);
        const needed = (await pipeline.step(schedule, batch)).peaks.map((peak) => peak.needed);
        const predicted = peakMemory(schedule, memory);
        assert.deepEqual(predicted, needed.slice(2), described({ model }, schedule));
        assert.ok(
          needed.slice(0, 2).every((bytes, rank) => bytes <= predicted[rank]),
          "the first replica needs no more",
        );
      }
      pipeline.close();
    }
  }
});

test("so it is where ranks are in several processes, in which messages that are waited for take memory", async () => {
  const cases = [
    ["llama-tiny", "1f1b-1", {}],
    ["llama-tiny", "interleaved-1f1b", { replicas: 2 }],
    ["llama-tiny", "zb-v", { replicas: 2, shardOptimizer: true, precision: "mixed" }],
    ["bert-tiny", "1f1b-2", { replicas: 3, recompute: "both" }],
    ["resnet-tiny", "dualpipe-v", { precision: "mixed" }],
  ] as const;
  for (const [model, name, how] of cases) {
    const base = generate(name, { devices: 2 }), { placement } = base, all = { ...shape, ...how, placement };
    const [within, apart] = await Promise.all(
      [false, true].map((apart) => stageMemories(createModel(model), { ...all, apart })),
    );
    const memory = (stage: number) => apart[stage];
    const pipeline = dryPipeline(createModel(model), 2, { ...all, apart: true });
    for (const schedule of variants(base, [1], memory, ["lean", "end"])) {
      const batch = blankBatch(createModel(model), pipeline.replicas * shape.samples * sizesOf(schedule).microbatches);
      const needed = (await pipeline.step(schedule, batch)).peaks.map((peak) => peak.needed);
      const predicted = peakMemory(schedule, memory), what = described({ model }, schedule);
      assert.deepEqual(predicted, needed.slice(-2), what);
      const before = peakMemory(schedule, (stage) => within[stage]);
      assert.ok(
        before.every((bytes, rank) => bytes <= predicted[rank]) &&
          before.some((bytes, rank) => bytes < predicted[rank]),
        what,
      );
    }
    const capped = Math.max(...peakMemory(twoStage(wholeBackward(base), { policy: "lean", memory }), memory));
    const tight = twoStage(wholeBackward(base), { policy: `cap:${capped}`, memory });
    const batch = blankBatch(createModel(model), pipeline.replicas * shape.samples * sizesOf(tight).microbatches);
    assert.ok((await pipeline.step(tight, batch)).peaks.every(({ needed }) => needed <= capped), `${model} ${name}`);
    pipeline.close();
  }
});

test("so it is with frozen parameters, on stages that train nothing, some or all of theirs", async () => {
  const choices = {
    "llama-tiny": (name: string) => /embedding|blocks\.[01]/.test(name),
    "bert-tiny": (name: string) => !/bias|norm/.test(name),
    "mamba-tiny": (name: string) => !/A_log|head|embedding|x_proj/.test(name),
    "resnet-tiny": (name: string) => /conv|downsample|layer1/.test(name),
  };
  for (const [model, isFrozen] of Object.entries(choices)) {
    for (const options of [{}, { precision: "mixed" }, { recompute: "both" }] as const) {
      const what = { model, isFrozen, ...options };
      for (const name of ["1f1b-2", "dualpipe-v"]) {
        const base = generate(name, { devices: 2 });
        const memory = await memoryOf(what, base, 3);
        await stepsOf(what, base, async (neededBy) => {
          for (const schedule of variants(base, [1, 3], memory, ["fill", "lean"])) {
            assert.deepEqual(peakMemory(schedule, memory), await neededBy(schedule), described(what, schedule));
          }
        });
      }
    }
  }
});

test("so it is with recomputation, in mixed precision too", async () => {
  for (const model of tiny) {
    for (
      const [recompute, precision] of [["both", "mixed"], ["derivatives", "f32"], ["activations:1", "f32"]] as const
    ) {
      const what = { model, recompute, precision };
      for (const name of ["1f1b-2", "dualpipe-v"]) {
        const base = generate(name, { devices: 2 });
        const memory = await memoryOf(what, base, 3);
        await stepsOf(what, base, async (neededBy) => {
          for (const schedule of variants(base, [1, 3], memory, ["fill", "lean"])) {
            assert.deepEqual(peakMemory(schedule, memory), await neededBy(schedule), described(what, schedule));
          }
        });
      }
    }
  }
});

test("stages of one rank that hand each other the slabs of wide W: to the byte, or 1 % more where both keep a tensor", async () => {
  for (const model of tiny) {
    for (const [name, devices] of [["zb-v", 2], ["interleaved-1f1b", 1]] as const) {
      const base = wholeBackward(generate(name, { devices, microbatches: 4 }));
      const memory = await memoryOf({ model }, base, 4);
      await stepsOf({ model }, base, async (neededBy) => {
        for (const schedule of variants(base, [1, 2, 4], memory, ["lean", "end", "every:2"])) {
          const needed = await neededBy(schedule), what = described({ model }, schedule);
          const most = model === "resnet-tiny" && sizesOf(schedule).width > 1 ? 1.01 : 1; // ReLU keeps what a convolution takes
          for (const [rank, bytes] of peakMemory(schedule, memory).entries()) {
            assert.ok(bytes >= needed[rank] && bytes <= most * needed[rank], `${what}: ${bytes}, not ${needed[rank]}`);
          }
        }
      });
    }
  }
});

test("the end of a step counts where it needs most: gradients of a large tied vocabulary are summed up", async () => {
  const model = bert("wide", {
    ...bertConfigurations["bert-tiny"],
    ...{ vocabulary: 20_000, width: 16, hidden: 16, blocks: 2, length: 8 },
  });
  const schedule = generate("naive", { devices: 2 }), options = { ...shape, samples: 1 };
  const stages = await stageMemories(model, { ...options, stages: 2 });
  const needed = (await predictMemory(model, schedule, 1, options)).map((peak) => peak.needed);
  assert.deepEqual(peakMemory(schedule, (stage) => stages[stage]), needed);
  const without = peakMemory(schedule, (stage) => ({ ...stages[stage], update: 0 }));
  assert.ok(without[0] < 0.9 * needed[0], `${without[0]} without the end, ${needed[0]} with it`);
});

test("a W over K micro-batches takes at most what K - 1 more micro-batches in flight hold, for every model and policy", async () => {
  for (const model of tiny) {
    const base = generate("1f1b-2", { devices: 2 }), memory = await memoryOf({ model }, base, 4);
    for (const policy of ["fill", "end", "mid", "every:2", "every:4"] as PolicyText[]) {
      const [alone, two, four] = await stepsOf(
        { model },
        base,
        async (neededBy) => {
          const needed: number[][] = [];
          for (const width of [1, 2, 4]) needed.push(await neededBy(twoStage(base, { policy, width })));
          return needed;
        },
      );
      for (const [width, needed] of [[2, two], [4, four]] as const) {
        for (const [rank, bytes] of needed.entries()) {
          const { activations, derivatives, slots, workspace } = memory(rank);
          const more = (width - 1) * (activations + derivatives) + slots!.groups![width - 2].W - workspace!.W!;
          const what = `${model} ${policy} width ${width} rank ${rank}`;
          assert.ok(bytes <= alone[rank] + more, `${what}: ${bytes}, with width 1 ${alone[rank]}, and ${more} more`);
        }
      }
    }
  }
});

test("a memory model that does not know a W so wide says so", async () => {
  const base = generate("1f1b-2", { devices: 2 });
  const memory = await memoryOf({ model: "llama-tiny" }, base, 2);
  assert.throws(() => peakMemory(twoStage(base, { policy: "end", width: 3 }), memory), {
    name: "UserError",
    message: "The memory model knows of at most 2 micro-batches in a W of stage 0, and rank 0 of 1f1b-2 has 3: " +
      "stageMemories takes the width",
  });
});

test("cap:BYTES holds in a step to the byte, and one too small names the least that would do, which does", async () => {
  for (const model of tiny) {
    const base = generate("1f1b-2", { devices: 2 }), memory = await memoryOf({ model }, base, 2);
    const capped = (bytes: number, width = 1) => twoStage(base, { policy: `cap:${bytes}`, width, memory });
    let least = 0;
    assert.throws(() => capped(1000), (error: UserError) => {
      const found = /^cap:1000 is too small for 1f1b-2: rank \d needs .* so cap:(\d+) works$/.exec(
        error.message,
      );
      least = Number(found?.[1]);
      return least > 0;
    });
    assert.throws(() => capped(least - 1), /so cap:\d+ works$/);
    const fill = Math.max(...peakMemory(twoStage(base, { policy: "fill" }), memory));
    for (const bytes of [least, Math.round((least + fill) / 2)]) {
      for (const width of [1, 2]) {
        const needed = await stepsOf({ model }, base, (neededBy) => neededBy(capped(bytes, width)));
        assert.ok(Math.max(...needed) <= bytes, `${model} cap:${bytes} width ${width}: ${needed}`);
        if (bytes === least) assert.equal(Math.max(...needed), bytes);
      }
    }
  }
});

test("a search keeps its cap with the messages that a step has on their way", async () => {
  for (const name of ["llama-tiny", "resnet-tiny"]) {
    const stages = await stageMemories(createModel(name), { stages: 3, samples: 4, optimizer: adamw() });
    const memory = (stage: number) => stages[stage];
    const most = Math.max(...peakMemory(twoStage(generate("1f1b", { devices: 3, microbatches: 6 })), memory));
    for (const cap of [0.75, 0.7].map((share) => share * most)) {
      const { schedule, makespan } = await search({ devices: 3, microbatches: 6, memory, cap, budget: 2e4 });
      assert.equal(makespan, 20);
      assert.ok(Math.max(...peakMemory(schedule, memory)) <= cap, name);
    }
  }
});
