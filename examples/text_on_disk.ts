/**
 * Trains on texts on disk: JSON lines, a tenth of them held out, drawn ahead of the steps; stops half-way, and goes on where it
 * stood. Prints the losses: the last one is of what is held out.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { adamw, createModel, createPipeline, generate, openDevices, twoStage } from "twobp";
import { openCorpus, prefetched, type SourcePosition } from "twobp/train";

const folder = mkdtempSync(join(tmpdir(), "stories-"));
const animals = ["cat", "dog", "owl", "fox", "bee"], places = ["hill", "lake", "wood", "town"];
const stories = Array.from({ length: 200 }, (_, i) => {
  const [animal, place] = [animals[i % 5], places[i % 4]];
  return JSON.stringify({
    text: `Story ${i}. The ${animal} went to the ${place}. At the ${place} the ${animal} slept.`,
  });
});
writeFileSync(join(folder, "stories.jsonl"), stories.join("\n"));

const corpus = await openCorpus(folder, { heldOut: 0.1 });
console.log(`${corpus.documents} documents to train on, ${corpus.heldOut} held out`);
const model = createModel("llama-tiny"); // its tokens are bytes
const set = await openDevices(2);
const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 3e-3 }) });
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));

/** Trains for so many steps from a position on: the last loss, and where the data have come to. */
async function train(steps: number, from?: SourcePosition): Promise<{ loss: number; position: SourcePosition }> {
  const source = prefetched(corpus.train({ model, seed: 1, from }), { samples: 8 });
  let loss = NaN;
  for (let step = 0; step < steps; step++) ({ loss } = await pipeline.step(schedule, await source.next(8)));
  return { loss, position: source.position() };
}

const half = await train(12);
const saved = JSON.stringify(half.position); // beside the weights, say
const whole = await train(12, JSON.parse(saved));
const unseen = await corpus.held({ model, seed: 1 }).next(8);
const { loss } = await pipeline.step(schedule, unseen, { optimize: false });
console.log(`loss ${half.loss.toFixed(3)}, then ${whole.loss.toFixed(3)}; on what is held out ${loss.toFixed(3)}`);
if (!(loss < 0.7 * Math.log(256))) throw new Error("It has not learnt its stories");
pipeline.close();
set.close();
rmSync(folder, { recursive: true });
