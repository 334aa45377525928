/**
 * Trains, stops in the midst as a machine does that is taken away, and goes on in another pipeline, which has nothing but the folder.
 * Prints the losses of both: the resumed training has every bit of the one that was never interrupted.
 */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { adamw, createModel, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
import { train, type TrainOptions } from "twobp/train";

const folder = mkdtempSync(join(tmpdir(), "resume-"));
const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(50));
const set = await openDevices(2), model = createModel("llama-tiny");

/** Trains a pipeline of its own, and gives its losses. */
async function run(options: Partial<TrainOptions>): Promise<number[]> {
  const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 3e-3 }) });
  const losses: number[] = [];
  const { resumed, steps } = await train(pipeline, {
    schedule: twoStage(generate("1f1b-1", { devices: 2 })),
    data: { open: (from) => textSource(text, { length: 64, seed: 1, from }) }, // at the start, or where it stood
    ...{ samples: 4, steps: 12, clip: 1, onStep: ({ loss }) => losses.push(loss) },
    ...options,
  });
  pipeline.close();
  console.log(`steps ${resumed?.step ?? 0} to ${steps}: loss ${losses.map((loss) => loss.toFixed(3)).join(" ")}`);
  return losses;
}

const whole = await run({});
const save = { folder, every: 3, keep: 2 };
const first = await run({ steps: 7, save, resume: true }); // there is nothing yet to go on from
console.log(`checkpoints: ${readdirSync(folder).toSorted().join(", ")}`);
const second = await run({ save, resume: true });
if (whole.join() !== [...first, ...second].join()) throw new Error("It has gone on as another training");
set.close();
rmSync(folder, { recursive: true });
