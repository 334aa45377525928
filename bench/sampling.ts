/**
 * `deno task bench sampling`: the time of a token with what layers keep of those before it, and without, when all of them go
 * through the model again; by where in the sequence the token stands.
 */
import { Command } from "commander";
import { createPipeline, generate, type Model, type Pipeline, type Schedule, sgd, UserError } from "twobp";
import { kept, median, quartiles } from "twobp/measure";
import { countParameters } from "twobp/models";
import { progress, type Table, tableText } from "twobp/report";
import { partition } from "twobp/runtime";
import * as flag from "../lib/cli/flags.ts";
import { integer, main } from "../lib/cli/options.ts";
import { openOutputs } from "../lib/cli/outputs.ts";
import { quietCheck } from "../lib/cli/quiet_check.ts";
import { withDevices } from "../lib/cli/with_devices.ts";
import { sourceFor } from "./data.ts";
import { withLength } from "./with_length.ts";

interface Options {
  model: string;
  length: number;
  positions: number[];
  devices: number;
  virtual?: boolean;
  repeats: number;
  seed: number;
  quietCheck?: boolean;
  json?: string;
  html?: string;
  out?: string;
}

/** Times of a token that has so many before it, in milliseconds. */
interface Row {
  readonly position: number;
  /** One pass of one token. */
  readonly kept: number;
  /** A pass of all tokens. */
  readonly again: number;
  /** The second over the first, of rounds. */
  readonly ratio: { readonly median: number; readonly quartiles: readonly [number, number] };
  readonly ms: { readonly kept: readonly number[]; readonly again: readonly number[] };
}

/** Tokens that are made in a round with what is kept, the last behind as many as the row says; the time is the median of all but the first. */
const made = 6;

/** How far logits may be apart, by the largest of them, for the two ways to be the same: sums of another order. */
const bound = 1e-4;

/** The command line; `bench/main.ts` adds it to the others. */
export const sampling = new Command("sampling")
  .description("The time of a token by its position, with what layers keep of those before it and without, in turns.")
  .addOption(flag.model("llama-tiny"))
  .option("--length <n>", "the most tokens of a sequence", integer(2, 2 ** 16), 512)
  .option("--positions <a,b>", `numbers of tokens before the one that is timed, ${made} or more`, listOfPositions, [
    16,
    64,
    128,
    256,
    448,
  ])
  .option("--devices <n>", "pipeline ranks, 1 to 16", integer(1, 16), 1)
  .addOption(flag.virtual("run all ranks on one device, in turn"))
  .addOption(flag.repeats("rounds", 15))
  .addOption(flag.seed())
  .addOption(flag.quietCheck())
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(options: Options): Promise<void> {
  const out = openOutputs(options);
  const { length, positions, devices, virtual, repeats, seed } = options;
  const model = withLength(options.model, length);
  partition(model, devices); // explains too many stages
  const beyond = positions.find((position) => position >= length);
  if (beyond !== undefined) {
    throw new UserError(`--positions: behind ${beyond} tokens there is no room for another in --length ${length}`);
  }
  const { inputs } = await sourceFor(model, undefined, seed).source.next(1);
  const tokens = Array.from(inputs as Uint32Array);
  const schedule = generate("naive", { devices, microbatches: 1 });
  const noise = await quietCheck(options, out.say);
  const bar = progress((repeats + 1) * positions.length, "pairs");
  const report = await withDevices(devices, { virtual, say: out.say }, async (set) => {
    const make = (model: Model) => createPipeline(set, model, { optimizer: sgd({ learningRate: 0 }), seed });
    const pipeline = make(model);
    // Parameters do not depend on the length: with as long a sequence as there are tokens a model makes no more than it has to.
    const rows = positions.map((position) => ({
      ...{
        position,
        prompt: tokens.slice(0, position + 1 - made),
        pipeline: make(withLength(options.model, position)),
      },
      ...{ all: [] as number[], ms: { kept: [] as number[], again: [] as number[] } },
    }));
    try {
      for (let round = 0; round <= repeats; round++) {
        for (const { position, prompt, all, pipeline: whole, ms } of rows) {
          if (round === 0) all.push(...prompt, ...(await goOn(pipeline, prompt)).tokens.slice(0, -1));
          const early = round % 2 === 0 ? undefined : await again(whole, schedule, all);
          const last = await goOn(pipeline, prompt);
          const other = early ?? await again(whole, schedule, all);
          expectSame(last.logits, other.logits, position);
          bar.step();
          if (round === 0) continue; // kernels are compiled and chosen
          ms.kept.push(last.ms);
          ms.again.push(other.ms);
        }
      }
      return {
        schema: 1,
        ...{ mode: set.mode, devices, adapter: set.adapter },
        model: { name: model.name, parameters: countParameters(model), ...model.configuration },
        ...{ seed, repeats, rows: rows.map(({ position, ms }) => rowOf(position, ms)) },
      };
    } finally {
      [pipeline, ...rows.map(({ pipeline }) => pipeline)].forEach((each) => each.close());
    }
  }).finally(bar.done);
  const table = tableOf(report.rows);
  const about = `${model.name} of ${length} tokens on ${devices} ${report.mode} device${devices === 1 ? "" : "s"} ` +
    `(${report.adapter}); milliseconds a token, medians of ${repeats} rounds`;
  out.say(`\n${about}\n${tableText(table)}`);
  await out.results("bench", {
    title: "Time of a token",
    report,
    ...noise,
    sections: () => [{ heading: "Time of a token", text: about, table }],
  });
}

/** What the last of some tokens is drawn from, and the time of a token. */
interface Timed {
  readonly logits: Float32Array;
  readonly ms: number;
}

/** Goes on with a prompt, and gives the time of a token after the first and what the last one is drawn from. */
async function goOn(pipeline: Pipeline, prompt: readonly number[]): Promise<Timed & { tokens: number[] }> {
  let logits = new Float32Array();
  const { tokens, tokenMs } = await pipeline.generate(prompt, {
    ...{ temperature: 0, tokens: made },
    onToken: (each) => void (logits = each.logits as typeof logits),
  });
  return { logits, ms: median(tokenMs), tokens: [...tokens] };
}

/** All tokens go through the model, one pass for each that is made: what it would take if nothing were kept. */
async function again(pipeline: Pipeline, schedule: Schedule, tokens: readonly number[]): Promise<Timed> {
  const inputs = Uint32Array.from(tokens), start = performance.now();
  const { outputs } = await pipeline.evaluate(schedule, { samples: 1, inputs, targets: inputs }, { outputs: true });
  return { logits: outputs!.subarray(-pipeline.model.takes.vocabulary!), ms: performance.now() - start };
}

/** Refuses times of two ways that are not the same. */
function expectSame(one: Float32Array, other: Float32Array, position: number): void {
  const most = one.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
  const apart = one.reduce((most, logit, at) => Math.max(most, Math.abs(logit - other[at])), 0);
  if (one.length > 0 && apart <= bound * most) return;
  throw new Error(`Behind ${position} tokens the logits of the two ways are ${apart} apart, the largest is ${most}`);
}

function rowOf(position: number, ms: { kept: number[]; again: number[] }): Row {
  const ratios = ms.again.map((each, at) => each / ms.kept[at]);
  return {
    ...{ position, kept: median(ms.kept), again: median(ms.again) },
    ratio: { median: median(ratios), quartiles: quartiles(ratios) },
    ms: { kept: kept(ms.kept), again: kept(ms.again) },
  };
}

function tableOf(rows: readonly Row[]): Table {
  return {
    columns: ["tokens before", "kept", "all again", "all again over kept", "quartiles"],
    rows: rows.map(({ position, kept, again, ratio: { median, quartiles: [low, high] } }) => [
      ...[position, kept.toFixed(2), again.toFixed(2)],
      ...[median.toFixed(2), `${low.toFixed(2)} to ${high.toFixed(2)}`],
    ]),
  };
}

/** Reads numbers of tokens separated by commas, ascending. */
function listOfPositions(text: string): number[] {
  const read = integer(made, 2 ** 16);
  return [...new Set(text.split(",").map((each) => read(each.trim())))].sort((a, b) => a - b);
}

if (import.meta.main) await main(sampling);
