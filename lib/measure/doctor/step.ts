/** The main job, in small: training steps of a pipeline of two ranks, with 2BP and without, and whether they are right. */
import type { DeviceSet } from "../../gpu/devices.ts";
import { llama } from "../../models/llama.ts";
import { createPipeline, type Precision } from "../../runtime/pipeline.ts";
import { generate } from "../../schedules/generators/generate.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { twoStage } from "../../schedules/transforms/two_stage.ts";
import { firstLine } from "../../text.ts";
import { textSource } from "../../train/data.ts";
import { adamw } from "../../train/optimizers.ts";
import type { StepCheck } from "./diagnosis.ts";

const model = { vocabulary: 256, width: 64, blocks: 2, heads: 2, hidden: 128, length: 32 };
const text = "to be or not to be, that is the question. ".repeat(20);
const steps = 4, samples = 4;
/** Sums are taken in another order with 2BP; f16 has 11 bits. */
const tolerances = { split: 1e-3, mixed: 3e-2 };
/** By how much the loss of a batch that is trained on again and again must have fallen; it falls by more than 1. */
const leastFall = 0.2;

/** Trains on `set`, which has two devices. */
export async function checkStep(set: DeviceSet): Promise<StepCheck> {
  const plain = generate("1f1b-1", { devices: 2 }), split = twoStage(plain, { policy: "fill" });
  const about = { model: `a LLaMa of ${model.blocks} blocks, width ${model.width}`, schedule: "1f1b-1 with 2BP" };
  let mixed: { losses: readonly number[]; problem?: string } | undefined;
  try {
    const { losses, ms } = await train(set, split, "f32");
    const alone = await train(set, plain, "f32");
    const problem = wrong(losses) ?? apart(losses, alone.losses, tolerances.split, "without 2BP");
    if (set.devices.every(({ gpu }) => gpu.info.f16)) mixed = await trainMixed(set, split, losses);
    return {
      ...about,
      losses,
      ms,
      ...problem === undefined ? {} : { problem },
      ...mixed ? { mixedLosses: mixed.losses } : {},
      ...mixed?.problem === undefined ? {} : { mixedProblem: mixed.problem },
    };
  } catch (error) {
    return { ...about, losses: [], ms: NaN, problem: firstLine(error) };
  }
}

/** Losses of the steps, all on one batch, and the time of the fastest. */
async function train(set: DeviceSet, schedule: Schedule, precision: Precision) {
  const pipeline = createPipeline(set, llama("doctor", model), { optimizer: adamw({ learningRate: 0.01 }), precision });
  try {
    const batch = textSource(new TextEncoder().encode(text), { length: model.length, seed: 1 }).next(samples);
    const losses: number[] = [];
    let ms = Infinity;
    for (let step = 0; step < steps; step++) {
      const { loss, wallMs } = await pipeline.step(schedule, batch);
      losses.push(loss);
      ms = Math.min(ms, wallMs);
    }
    return { losses, ms };
  } finally {
    pipeline.close();
  }
}

async function trainMixed(set: DeviceSet, schedule: Schedule, right: readonly number[]) {
  try {
    const { losses } = await train(set, schedule, "mixed");
    return { losses, problem: wrong(losses) ?? apart(losses, right, tolerances.mixed, "in f32") };
  } catch (error) {
    return { losses: [], problem: firstLine(error) };
  }
}

/** What is wrong with losses that nothing is compared with: random weights know nothing, and must learn one batch by heart. */
export function wrong(losses: readonly number[]): string | undefined {
  const [first] = losses, last = losses[losses.length - 1], ignorant = Math.log(model.vocabulary);
  const said = `${first.toPrecision(4)} to ${last.toPrecision(4)}`;
  if (!(Math.abs(first - ignorant) < 1)) {
    return `the loss begins at ${first.toPrecision(4)}, not near ${ignorant.toPrecision(4)}`;
  }
  if (!(first - last > leastFall)) {
    return `the loss does not fall on a batch that is trained on again and again: ${said}`;
  }
  return undefined;
}

/** What is wrong with losses that should be others'. */
export function apart(
  losses: readonly number[],
  others: readonly number[],
  tolerance: number,
  which: string,
): string | undefined {
  const at = losses.findIndex((loss, step) => !(Math.abs(loss - others[step]) <= tolerance * others[step]));
  if (at < 0) return undefined;
  return `the loss of step ${at + 1} is ${losses[at].toPrecision(5)}, and ${others[at].toPrecision(5)} ${which}`;
}
