import assert from "node:assert/strict";
import { test } from "node:test";
import { blankBatch, dryPipeline } from "../../lib/measure/memory.ts";
import { stageMemories } from "../../lib/measure/stage_memory.ts";
import { createModel } from "../../lib/models/registry.ts";
import type { PolicyText, Schedule } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import type { StageMemory } from "../../lib/schedules/price/memory.ts";
import { peakMemory } from "../../lib/schedules/price/peak_memory.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";

const optimizer = adamw();
const samples = 2;
const policies: PolicyText[] = ["fill", "lean", "end", "mid", "every:2"];
const tiny = ["llama-tiny", "bert-tiny", "mamba-tiny", "resnet-tiny"];

/** Peaks of each rank in a step run with shapes alone; messages on their way are left out, since they depend on time. */
async function peaksOf(name: string, schedule: Schedule): Promise<number[]> {
  const model = createModel(name);
  const pipeline = dryPipeline(model, sizesOf(schedule).devices, { optimizer, placement: schedule.placement });
  const batch = blankBatch(model, samples * sizesOf(schedule).microbatches);
  const { timeline } = await pipeline.step(schedule, batch, { optimize: false, timeline: true });
  pipeline.close();
  return timeline!.map((points) =>
    points.reduce((most, { total, categories }) => Math.max(most, total - categories.transfer), 0)
  );
}

const quiet = (stages: readonly StageMemory[]) => (stage: number): StageMemory => ({
  ...stages[stage],
  messages: { F: 0, I: 0 },
});

test("peakMemory() of the stages' memory models is what a whole step takes, for all models, schedules, policies and widths", async () => {
  for (const name of tiny) {
    for (const kind of ["naive", "gpipe", "1f1b-1", "1f1b-2", "interleaved-1f1b", "zb-h1", "zb-v", "dualpipe-v"]) {
      const base = generate(kind, { devices: kind.endsWith("-v") || kind[0] === "i" ? 2 : 3 });
      const stages = await stageMemories(createModel(name), { stages: sizesOf(base).stages, samples, optimizer });
      const memory = quiet(stages);
      const split = sizesOf(base).split
        ? []
        : policies.flatMap((policy) => [1, 2].map((width) => twoStage(base, { policy, width, memory })));
      for (const schedule of [base, ...split]) {
        const guess = peakMemory(schedule, memory);
        for (const [rank, peak] of (await peaksOf(name, schedule)).entries()) {
          const what = `${name} ${kind} ${schedule.policy ?? ""} width ${sizesOf(schedule).width} rank ${rank}`;
          // A result that a stage keeps (ReLU does) and hands to its neighbour on the same rank is one tensor, and counts twice here.
          const twice = base.placement.some((at, stage) => at === rank && base.placement[stage + 1] === rank)
            ? Math.max(...stages.map(({ messages }) => messages!.F))
            : 0;
          assert.ok(guess[rank] > 0.98 * peak, `${what}: ${guess[rank]}, not ${peak}`);
          assert.ok(guess[rank] < 1.02 * peak + twice, `${what}: ${guess[rank]}, not ${peak}`);
        }
      }
    }
  }
});

test("a W over K micro-batches takes at most what K - 1 more micro-batches in flight hold, for every model and policy", async () => {
  for (const name of tiny) {
    const base = generate("1f1b-2", { devices: 2 });
    const stages = await stageMemories(createModel(name), { stages: 2, samples, optimizer });
    for (const policy of ["fill", "end", "mid", "every:2", "every:4"] as PolicyText[]) {
      const [one, ...wider] = [1, 2, 4].map((width) => twoStage(base, { policy, width, memory: quiet(stages) }));
      const alone = await peaksOf(name, one);
      for (const schedule of wider) {
        for (const [rank, peak] of (await peaksOf(name, schedule)).entries()) {
          const { activations, derivatives, slots } = stages[rank];
          const more = (sizesOf(schedule).width - 1) * (activations + derivatives + slots!.weights!);
          const what = `${name} ${policy} width ${sizesOf(schedule).width} rank ${rank}`;
          assert.ok(peak <= alone[rank] + more, `${what}: ${peak}, with width 1 ${alone[rank]}, and ${more} more`);
        }
      }
    }
  }
});

test("cap:BYTES holds in a step, and one too small names the least that would do, which does", async () => {
  for (const name of tiny) {
    const base = generate("1f1b-2", { devices: 2 });
    const stages = await stageMemories(createModel(name), { stages: 2, samples, optimizer });
    const memory = quiet(stages);
    const least = (() => {
      try {
        twoStage(base, { policy: "cap:1000", memory });
      } catch (error) {
        return Number(
          /^cap:1000 is too small for 1f1b-2: rank \d needs .* so cap:(\d+) is the least$/.exec(
            (error as Error).message,
          )?.[1],
        );
      }
    })()!;
    const fill = Math.max(...peakMemory(twoStage(base, { policy: "fill" }), memory));
    assert.throws(() => twoStage(base, { policy: `cap:${least - 1}`, memory }), /so cap:\d+ is the least$/);
    for (const bytes of [least, Math.round((least + fill) / 2)]) {
      for (const width of [1, 2]) {
        const peaks = await peaksOf(name, twoStage(base, { policy: `cap:${bytes}`, width, memory }));
        assert.ok(Math.max(...peaks) <= 1.01 * bytes, `${name} cap:${bytes} width ${width}: ${peaks}`);
      }
    }
  }
});
