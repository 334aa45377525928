/** `deno task sample`: a model goes on with a text, token by token, through a pipeline. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { frozenModel } from "../models/frozen_model.ts";
import { countParameters, type Model } from "../models/model.ts";
import { createModel, modelNames } from "../models/registry.ts";
import { writeOutput } from "../output.ts";
import { checkGenerates, checkPrompt } from "../runtime/generate.ts";
import { createPipeline, type Precision } from "../runtime/pipeline.ts";
import { NotFiniteError } from "../runtime/transport.ts";
import { quoted, shown } from "../text.ts";
import { sgd } from "../train/optimizers.ts";
import { byteTokenizer, loadTokenizer, type Tokenizer } from "../train/tokenizer.ts";
import { findWhole } from "../training/checkpoint.ts";
import { stepsIn } from "../training/checkpoint_folder.ts";
import { type GeneratedText, generateText } from "../training/generate_text.ts";
import { loraModelFrom } from "../weights/adapted_from.ts";
import { loadAdapters } from "../weights/adapters.ts";
import { loadWeights } from "../weights/checkpoint.ts";
import { modelFrom } from "../weights/model_from.ts";
import { onNextEnding } from "./endings.ts";
import * as flag from "./flags.ts";
import { bytes, integer, real } from "./options.ts";
import { openOutputs } from "./outputs.ts";
import { codeOfAll, withDevices } from "./with_devices.ts";

/** The flags of `deno task sample`. */
interface SampleFlags {
  model?: string;
  from?: string;
  length?: number;
  load?: string;
  adapters?: string;
  tokenizer?: string;
  prompt: string;
  tokens?: number;
  temperature: number;
  topK?: number;
  topP?: number;
  seed: number;
  devices: number;
  virtual?: boolean;
  precision: Precision;
  budget?: number;
  json?: string;
}

/** The command line. */
export function sampleCommand(): Command {
  const command = new Command("sample")
    .description(
      "Let a language model go on with a text, token by token, through a pipeline. Ctrl-C ends it with the token that is under way.",
    )
    .addOption(flag.model(undefined, [], " (default: that of --load, or llama-tiny)"))
    .option("--from <folder>", "a model with its weights, as Hugging Face has them: config.json and safetensors")
    .option("--length <n>", "tokens of the whole text at most, with --from (default: up to 2048)", integer(1, 2 ** 20))
    .option(
      "--load <path>",
      "its weights: the folder of --save of a training, one of its checkpoints, or a safetensors file",
    )
    .option(
      "--adapters <folder>",
      "adapters beside its weights (LoRA), a folder of --adapters of a training or of PEFT",
    )
    .option("--tokenizer <path>", "a tokenizer.json, or its folder (default: that of --from, or bytes)")
    .option("--prompt <text>", "what the text begins with", "The ")
    .option("--tokens <n>", "new tokens at most (default: as many as the model has room for)", integer(1, 2 ** 20))
    .option("--temperature <t>", "what logits are divided by; 0 takes the likeliest token each time", real(0, 1e6), 1)
    .option("--top-k <k>", "draw from the k likeliest tokens alone (default: from all)", integer(1, 2 ** 31))
    .option(
      "--top-p <share>",
      "draw from the likeliest that have this probability together (default: 1)",
      real(1e-9, 1),
    )
    .option("--seed <n>", "equal seeds draw equal tokens", integer(0, 2 ** 31), 1)
    .option("--devices <n>", "pipeline ranks, 1 to 16", integer(1, 16), 1)
    .addOption(flag.virtual("run all ranks on one device, in turn"))
    .addOption(flag.precision())
    .option("--budget <size>", "the most memory that each device may take: 24GiB, 800MiB, 16e9", bytes)
    .addOption(flag.json("prompt, text, tokens and times"));
  return command.action(async () => await run(command.opts<SampleFlags>()));
}

/** Makes a text as the flags say; ends the process where a signal has ended that. */
async function run(flags: SampleFlags): Promise<void> {
  const { prompt, tokens, temperature, topK, topP, seed, devices, precision, budget } = flags;
  const out = openOutputs(flags);
  const weights = weightsOf(flags), model = modelOf(flags), tokenizer = await tokenizerOf(flags);
  checkGenerates(model);
  if (tokenizer.vocabulary > model.takes.vocabulary!) {
    throw new UserError(
      `The tokenizer has ${tokenizer.vocabulary} tokens, ${model.name} only ${model.takes.vocabulary}: give its own with --tokenizer`,
    );
  }
  checkPrompt(model, tokenizer.encode(prompt), []);
  if (model.layers.length < devices) {
    throw new UserError(`--devices ${devices} are more than the ${model.layers.length} layers of ${model.name}`);
  }
  const stop = new AbortController();
  let code = 0;
  await withDevices(devices, { virtual: flags.virtual, inJob: true, say: note }, async (set) => {
    const pipeline = createPipeline(set, model, {
      ...{ optimizer: sgd({ learningRate: 0 }), precision }, // nothing is trained
      ...budget === undefined ? {} : { budget },
    });
    try {
      note(
        `${model.name} (${(countParameters(model) / 1e6).toFixed(1)} M parameters) on ${devices} ${set.mode} ` +
          `device${devices === 1 ? "" : "s"} (${set.adapter}), ${precision}; ` +
          (weights === undefined
            ? "random weights (give others with --load or --from)"
            : `weights of ${shown(weights)}`) +
          (flags.adapters === undefined ? "." : `, adapters of ${shown(flags.adapters)}.`),
      );
      if (weights !== undefined) loadWeights(pipeline, weights);
      if (flags.adapters !== undefined) loadAdapters(pipeline, flags.adapters);
      onNextEnding((given) => {
        code = given;
        stop.abort();
      });
      const write = flags.json === "-" ? () => {} : (text: string) => writeOutput("-", printable(text));
      write(prompt);
      const made = await generateText(pipeline, {
        ...{ prompt, tokenizer, temperature, seed, signal: stop.signal, onText: write },
        ...tokens === undefined ? {} : { tokens },
        ...topK === undefined ? {} : { topK },
        ...topP === undefined ? {} : { topP },
      }).catch((error) => {
        if (!(error instanceof NotFiniteError)) throw error;
        const remedy = precision === "mixed"
          ? "try --precision f32"
          : "the weights are of a training that has diverged";
        throw new UserError(`${model.name} gives no numbers: ${error.message}; ${remedy}`, { cause: error });
      });
      write("\n");
      note(endedText(made, model));
      const { text, ended, promptMs, tokenMs } = made;
      await out.results("sample", {
        title: "Sample",
        report: { schema: 1, model: model.name, prompt, text, tokens: [...made.tokens], ended, promptMs, tokenMs },
        sections: () => [],
      });
      code = await codeOfAll(set, code);
    } finally {
      pipeline.close();
    }
  });
  if (code !== 0) process.exit(code);
}

/** What is not the text itself goes to standard error, so that the text can be passed on. */
function note(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** What a terminal would obey is no text. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- they are what is looked for
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "\ufffd");
}

const reasons: Readonly<Record<GeneratedText["ended"], string>> = {
  tokens: "all are made",
  stop: "the model ended the text",
  length: "the text is as long as the model takes",
  signal: "interrupted",
};

function endedText(
  { tokens, ended, promptMs, tokenMs }: GeneratedText,
  { takes: { inputs: [length] } }: Model,
): string {
  const rate = tokenMs.length === 0
    ? ""
    : `, then ${(1000 * tokenMs.length / tokenMs.reduce((sum, ms) => sum + ms, 0)).toFixed(1)} tokens/s`;
  const limit = ended === "length" ? `, ${length} tokens` : "";
  return `${tokens.length} tokens, the first after ${promptMs.toFixed(0)} ms${rate}: ${reasons[ended]}${limit}.`;
}

/** The file or folder that weights are loaded from; undefined where there is none. */
function weightsOf({ load, from, adapters }: SampleFlags): string | undefined {
  if (load === undefined) return from;
  const found = checkpointIn(load);
  if (adapters === undefined && /\+lora$/.test(nameIn(found) ?? "")) {
    throw new UserError(
      `--load ${
        shown(load)
      } is of a training with --lora: give what that wrote to its --adapters with --adapters, beside --from`,
    );
  }
  if (found) return join(found.path, "model.safetensors");
  if (existsSync(load)) return load;
  throw new UserError(`--load ${shown(load)}: there is no such file or folder`);
}

/** The last whole checkpoint of a training, where `--load` has any. */
function checkpointIn(load: string) {
  const damaged: string[] = [];
  const isFile = load.endsWith(".safetensors") || load.endsWith(".json");
  const found = isFile ? undefined : findWhole(load, damaged);
  if (!found && damaged.length > 0 && stepsIn(load).length > 0) {
    throw new UserError(`--load ${shown(load)}: no checkpoint in it is whole: ${damaged.join("; ")}`);
  }
  return found;
}

/** The model, without anything that it takes to train it. */
function modelOf({ model, from, length, load, adapters }: SampleFlags): Model {
  if (model !== undefined && from !== undefined) {
    throw new UserError(`--model ${quoted(model)} and --from ${quoted(from)} are two models: give one of the two`);
  }
  if (length !== undefined && from === undefined) {
    throw new UserError("--length is for a model of --from; those of --model have theirs");
  }
  const base = from === undefined
    ? createModel(model ?? trained(load) ?? "llama-tiny")
    : modelFrom(from, length === undefined ? {} : { length });
  return frozenModel(adapters === undefined ? base : loraModelFrom(base, adapters), () => true);
}

function nameIn(checkpoint: ReturnType<typeof checkpointIn>): string | undefined {
  const name = (checkpoint?.description.model as { name?: unknown } | undefined)?.name;
  return typeof name === "string" ? name : undefined;
}

/** The name of the model whose training left a checkpoint. */
function trained(load: string | undefined): string | undefined {
  const name = load === undefined ? undefined : nameIn(checkpointIn(load))?.replace(/\+lora$/, "");
  if (name === undefined) return undefined;
  if (modelNames.includes(name)) return name;
  throw new UserError(
    `--load ${shown(load!)} is of a model ${quoted(name)}: give the folder that it came from with --from`,
  );
}

async function tokenizerOf({ tokenizer, from }: SampleFlags): Promise<Tokenizer> {
  const ofModel = from === undefined ? undefined : join(from, "tokenizer.json");
  const path = tokenizer ?? (ofModel !== undefined && existsSync(ofModel) ? ofModel : undefined);
  return path === undefined ? byteTokenizer() : await loadTokenizer(path);
}
