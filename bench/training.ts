/**
 * `deno task bench training`: whether a language model learns a text beyond its pairs of tokens, whether it is the same training
 * without and with 2BP, and what time that saves. Two trainings of the same batches take turns, update by update.
 */
import { Command } from "commander";
import { adamw, createPipeline } from "twobp";
import { kept, median, medianInterval, quartiles } from "twobp/measure";
import { countParameters } from "twobp/models";
import { progress, tableText } from "twobp/report";
import { partition } from "twobp/runtime";
import { sizesOf } from "twobp/schedules";
import { type Batch, byteTokenizer, cosineDecay, generateText, type TrainEvaluation } from "twobp/train";
import * as flag from "../lib/cli/flags.ts";
import { loadPairs } from "../lib/cli/load_schedule.ts";
import { integer, main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { heldOutBatches, openTrainingData, type TrainingData } from "../lib/cli/training_data.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { checkPrompt } from "../lib/runtime/generate.ts";
import { heldOutLoss } from "../lib/training/evaluation.ts";
import { Bigrams } from "./bigrams.ts";
import { inTurns, steppedTraining } from "./in_turns.ts";
import {
  type TrainingComparison,
  trainingComparisonSections,
  trainingComparisonTable,
  trainingComparisonTitle,
} from "./training_report.ts";
import { withLength } from "./with_length.ts";

interface Options {
  model: string;
  length?: number;
  data?: string;
  schedule: string;
  devices?: number;
  virtual?: boolean;
  samples: number;
  steps: number;
  evalEvery: number;
  prompt: string;
  seed: number;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

/** Peak of the learning rate, the share of the updates in which it rises, and the most that the norm of gradients may be. */
const settings = { learningRate: 3e-3, warmUp: 0.05, clip: 1 };

/** Batches of an evaluation between updates; in the end all that is held out is looked at. */
const evaluated = 8;

/** The command line; `bench/main.ts` adds it to the others. */
export const training = new Command("training")
  .description(
    "Train a language model on a text without and with 2BP, in turns: losses beside those of pairs of tokens, how far the two " +
      "are the same, and the time of an update.",
  )
  .addOption(flag.model("llama-tiny"))
  .option("--length <n>", "tokens in a sequence (default: the model's)", integer(2, 2 ** 16))
  .option("--data <path>", "a text, JSON lines, Parquet, or a folder of them (default: this project's sources)")
  .option("--schedule <name>", "a schedule, or a CSV file of one", "1f1b-1")
  .addOption(flag.devices(1, 16, 2))
  .addOption(flag.virtual("run all ranks on one device, in turn"))
  .addOption(flag.samples(4))
  .option("--steps <n>", "updates of each training", integer(2, 1e9), 1000)
  .option("--eval-every <k>", "evaluate after so many updates and at the end", integer(1, 1e9), 100)
  .option("--prompt <text>", "what the texts begin with that the model makes in the end", "The ")
  .addOption(flag.seed())
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { devices, virtual, samples, steps, evalEvery, seed, prompt } = options;
  const model = withLength(options.model, options.length), [length] = model.takes.inputs;
  const [{ base, split }] = loadPairs([options.schedule], devices, 2);
  partition(model, base.placement); // explains too many stages
  checkPrompt(model, byteTokenizer().encode(prompt), []);
  const inBatch = samples * sizesOf(base).microbatches;
  const data = await openTrainingData(model, options, 0.1);
  const pairs = await pairsOf(data);
  const batches = await heldOutBatches(data, evaluated, inBatch);
  const all = await heldOutBatches(data, Math.max(1, Math.floor(pairs.heldOut / (inBatch * length))), inBatch);
  const noise = await quietCheck(options, out.say);
  const bar = progress(steps, "updates of each");

  const measured = await withDevices(base.actions.length, { virtual, say: out.say }, async (set) => {
    const { learningRate, warmUp, clip } = settings;
    const begun = [base, split].map((schedule) => {
      const pipeline = createPipeline(set, model, {
        ...{ optimizer: adamw({ learningRate }), placement: schedule.placement, seed },
      });
      const evaluations: TrainEvaluation[] = [];
      const training = steppedTraining(pipeline, {
        ...{ schedule, data: data.source(), samples: inBatch, steps, clip },
        learningRate: cosineDecay({ steps, warmUp: Math.ceil(warmUp * steps), least: 0.1 }),
        evaluation: { every: evalEvery, batches },
        onEvaluation: (each) => void evaluations.push(each),
      });
      return { schedule, pipeline, training, evaluations, losses: [] as number[], ms: [] as number[] };
    });
    try {
      await inTurns(begun.map(({ training }) => training), (made) => {
        made.forEach(({ loss, ms }, at) => {
          begun[at].losses.push(loss);
          begun[at].ms.push(ms);
        });
        const held = begun[1].evaluations.at(-1);
        bar.step(`loss ${made[1].loss.toFixed(3)}${held ? `, held out ${held.loss.toFixed(3)}` : ""}`);
      });
      bar.done();
      const heldOut = await heldOutLoss(begun[1].pipeline, split, all);
      const texts: string[] = [];
      for (let text = 1; text <= 3; text++) {
        const made = await generateText(begun[1].pipeline, { prompt, temperature: 0.8, seed: text });
        texts.push(printable(prompt + made.text));
      }
      return { begun, heldOut, texts, mode: set.mode, adapter: set.adapter };
    } finally {
      begun.forEach(({ pipeline }) => pipeline.close());
    }
  }).finally(bar.done);
  const [without, withIt] = measured.begun;
  const same = agreement(without.losses, withIt.losses);
  const ratios = without.ms.map((ms, at) => ms / withIt.ms[at]).slice(warmUpSteps(steps));
  const interval = medianInterval(ratios);
  const report: TrainingComparison = {
    schema: 1,
    ...{ mode: measured.mode, devices: base.actions.length, adapter: measured.adapter },
    model: { name: model.name, parameters: countParameters(model), ...model.configuration },
    ...{ schedule: base.name, ...split.policy ? { policy: split.policy } : {} },
    ...{ microbatches: sizesOf(base).microbatches, samples },
    ...{ steps, seed, settings: { optimizer: "adamw", ...settings }, data: data.name },
    tokens: { ofAnUpdate: inBatch * length, train: pairs.train, heldOut: pairs.heldOut },
    bigrams: {
      entropy: pairs.entropy,
      heldOut: pairs.loss(all),
      heldOutBetween: pairs.loss(batches),
    },
    heldOut: measured.heldOut,
    same,
    gain: {
      median: median(ratios),
      quartiles: quartiles(ratios),
      ...interval ? { interval } : {},
      pairs: ratios.length,
    },
    evaluations: withIt.evaluations.map(({ step, loss }, at) => ({
      ...{ step, with: loss, without: without.evaluations[at].loss },
    })),
    texts: measured.texts,
    losses: { without: without.losses.map(short), with: withIt.losses.map(short) },
    ms: { without: kept(without.ms), with: kept(withIt.ms) },
  };
  out.say(`\n${trainingComparisonTitle(report)}\n${tableText(trainingComparisonTable(report))}`);
  for (const text of report.texts) out.say(`\n${text}`);
  await out.results("bench", {
    title: "A training without and with 2BP",
    report,
    ...noise,
    sections: () => trainingComparisonSections(report),
  });
}

/** What a terminal would obey is no text. */
// deno-lint-ignore no-control-regex -- they are what is looked for
const printable = (text: string) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd");

/** Updates at the beginning that are not timed: kernels are compiled and chosen. */
const warmUpSteps = (steps: number) => Math.min(10, Math.floor(steps / 2));

/** Losses as they are kept: f32 has seven digits. */
const short = (loss: number) => Number(loss.toPrecision(9));

/** Counts the pairs of an epoch of each part, and scores what is held out by those of the other. Tokens are bytes, whatever the model has. */
async function pairsOf(data: TrainingData) {
  const { vocabulary } = byteTokenizer();
  const train = new Bigrams(vocabulary), held = new Bigrams(vocabulary), all = new Bigrams(vocabulary);
  for (const [source, own] of [[data.source(), train], [data.heldOut(), held]] as const) {
    do {
      const { inputs, targets } = await source.next(1);
      for (const bigrams of [own, all]) bigrams.add(inputs as Uint32Array, targets as Uint32Array);
    } while (source.position().epoch === 0);
  }
  return {
    ...{ train: train.pairs, heldOut: held.pairs, entropy: all.entropy() },
    loss: (batches: readonly Batch[]) => {
      const joined = (name: "inputs" | "targets") => batches.flatMap((batch) => Array.from(batch[name]));
      return train.loss(joined("inputs"), joined("targets"));
    },
  };
}

/** How far two curves are one. */
function agreement(a: readonly number[], b: readonly number[]) {
  const relative = a.map((loss, at) => Math.abs(loss - b[at]) / Math.abs(loss));
  const beyond = (bound: number) => {
    const at = relative.findIndex((each) => each > bound);
    return at < 0 ? undefined : at;
  };
  return {
    equalBits: relative.filter((each) => each === 0).length,
    largest: Math.max(...relative),
    firstBeyond: { "1e-6": beyond(1e-6), "1e-5": beyond(1e-5), "1e-4": beyond(1e-4) },
  };
}

if (import.meta.main) await main(training);
