/** Generation: a pipeline goes on with a sequence of tokens, one pass through all stages for each. */
import { reasonOf, UserError } from "../errors.ts";
import { type Generator, generator } from "../random.ts";
import { anything, callback, expectFields, optional, positive, type Rules, u32 } from "../rules.ts";
import { actionMaker, type Schedule } from "../schedules/schedule.ts";
import type { Model } from "../models/model.ts";
import { type Context, expectUsable } from "./context.ts";
import { anyOf, expectAlike, nameOfPeer } from "./elsewhere.ts";
import type { Piece, StepInput } from "./run.ts";
import { sampleToken, type SamplingOptions, samplingRules } from "./sampling.ts";
import { forgetSequence, releaseSequence } from "./sequence.ts";
import { expectNoError, runAll } from "./step.ts";
import { NotFiniteError, RankError } from "./transport.ts";
import { undoEvaluation } from "./undo.ts";

/** A token that has been drawn. */
export interface GeneratedToken {
  /** Its id. */
  readonly token: number;
  /** Its position in the sequence: that of the first is the number of the prompt's tokens. */
  readonly position: number;
  /** What it was drawn from, [vocabulary]; in f32 whatever the precision, and the caller's own. */
  readonly logits: Float32Array;
}

/** What a generation may be told. */
export interface GenerationOptions extends SamplingOptions {
  /** How many tokens are made at most; as many as the model has room for by default. */
  readonly tokens?: number;
  /** What is drawn depends on it and nothing else: a u32, 1 by default. */
  readonly seed?: number;
  /**
   * How many tokens may be drawn: those below. For a tokenizer that has fewer than the model, whose last rows stand for nothing; all by
   * default.
   */
  readonly vocabulary?: number;
  /** Tokens that end the sequence, and are not in it; none by default. */
  readonly stop?: readonly number[];
  /** Ends it after the token that is under way. */
  readonly signal?: AbortSignal;
  /** Called with each token as it comes, before the next is made. What it throws ends the generation, and is thrown. */
  readonly onToken?: (token: GeneratedToken) => void;
}

/** What a generation gave. */
export interface GenerationResult {
  /** The tokens that were made, without the prompt. */
  readonly tokens: Uint32Array;
  /** Why there are no more: all are made, one of `stop` came, the model's length is reached, or the signal was given. */
  readonly ended: "tokens" | "stop" | "length" | "signal";
  /** Time until the first token's logits are there, with those of the prompt, in milliseconds. */
  readonly promptMs: number;
  /** Time of each token after the first. */
  readonly tokenMs: readonly number[];
}

const rules: Rules<GenerationOptions> = {
  ...samplingRules,
  tokens: optional(positive),
  seed: optional(u32),
  vocabulary: optional(positive),
  stop: anything, // by `checkPrompt`
  signal: optional({
    right: "an AbortSignal",
    accepts: (value) => typeof (value as AbortSignal)?.aborted === "boolean",
  }),
  onToken: optional(callback),
};

/**
 * Goes on with `prompt`. All but its last token go through the stages at once, for what layers keep; then one token a pass.
 *
 * @throws {UserError} When the model does not generate, or prompt and options do not fit it; nothing has run then.
 * @throws {Error} When a rank fails, or logits are not finite.
 */
export async function runGeneration(
  context: Context,
  prompt: ArrayLike<number>,
  options: GenerationOptions = {},
): Promise<GenerationResult> {
  expectFields("generate", options, rules);
  const { model, ranks } = context;
  const { tokens: most = Infinity, stop = [], signal, onToken, seed = 1, vocabulary, ...sampling } = options;
  checkGenerates(model);
  checkPrompt(model, prompt, stop);
  if (vocabulary !== undefined && vocabulary > model.takes.vocabulary!) {
    throw new UserError(
      `generate: vocabulary ${vocabulary} is more than the ${model.takes.vocabulary} tokens of ${model.name}`,
    );
  }
  const [length] = model.takes.inputs, random = generator(seed);
  const dry = ranks.find(({ device }) => device.gpu.info.dry);
  if (dry) throw new UserError("generate: dry devices compute nothing; open others with openDevices()");
  ranks.forEach(({ device }) => expectNoError(device));
  const told = JSON.stringify({ ...options, signal: signal !== undefined, onToken: undefined });
  const sequence = Array.from(prompt); // before anything is waited for: the caller may change its own
  await expectAlike(context, () => `a generation from ${sequence.join(" ")} with ${told}`);
  /** Whether the signal was given, in any process. */
  const isAborted = async () => signal !== undefined && await anyOf(context, signal.aborted);
  // What is recorded belongs to what came before, and must not be lost with a generation that fails.
  ranks.forEach(({ device }) => device.submit());
  const marks = ranks.map(({ device }) => device.pool.mark());
  const capacity = Math.min(length, sequence.length + most - 1);
  const run = passesOf(context, capacity);
  const tokenMs: number[] = [], given = sequence.length;
  let ended: GenerationResult["ended"] = "tokens", promptMs = 0, start = performance.now();
  try {
    if (sequence.length > 1 && !await isAborted()) await run(sequence.slice(0, -1), 0, false);
    while (sequence.length - given < most) {
      if (await isAborted()) {
        ended = "signal";
        break;
      }
      const position = sequence.length;
      if (position > length) {
        ended = "length";
        break;
      }
      const logits = (await run([sequence[position - 1]], position - 1, true))!;
      const token = drawn(logits.subarray(0, vocabulary), sampling, random, position);
      const now = performance.now();
      if (position === given) promptMs = now - start;
      else tokenMs.push(now - start);
      start = now;
      if (stop.includes(token)) {
        ended = "stop";
        break;
      }
      sequence.push(token);
      onToken?.({ token, position, logits });
    }
    ranks.forEach(releaseSequence);
  } catch (error) {
    // What a caller's function threw here, or was drawn from, other processes do not know.
    const failure = error instanceof RankError ? error : new RankError(reasonOf(error));
    ranks.forEach(({ transport }) => transport.fail(failure));
    await undoEvaluation(context, marks, error);
    ranks.forEach(({ kept }) => forgetSequence(kept));
    throw error;
  }
  ranks.forEach(({ device }) => device.pool.endStep());
  return { tokens: Uint32Array.from(sequence.slice(given)), ended, promptMs, tokenMs };
}

/** Runs a piece of the sequence through all stages, and gives the outputs of its rows where they are wanted. */
function passesOf(context: Context, capacity: number) {
  const { model, stages } = context;
  const program = context.forwardProgramOf(context.forward);
  return async (tokens: readonly number[], position: number, wanted: boolean): Promise<Float32Array | undefined> => {
    const shapes: (readonly number[])[] = [[...model.inputShape(1).slice(0, -1), tokens.length]];
    for (const stage of stages) shapes.push(stage.outputShape(shapes[shapes.length - 1]));
    const piece: Piece = { position, capacity, wanted };
    const input: StepInput = {
      program,
      batch: { samples: 1, inputs: Uint32Array.from(tokens), targets: new Uint32Array(0) },
      ...{ shapes, targets: 1, optimize: false, timeline: false, outputs: wanted, piece },
    };
    const { outputs } = await runAll(context, input);
    const at = outputs.findIndex(({ fault }) => fault !== undefined);
    if (at >= 0) throw new Error(`${nameOfPeer(context, at)} failed at token ${position}: ${outputs[at].fault}`);
    expectUsable(context);
    return outputs.find((each) => each.outputs)?.outputs;
  };
}

function drawn(logits: Float32Array, sampling: SamplingOptions, random: Generator, position: number): number {
  try {
    return sampleToken(logits, sampling, random);
  } catch (error) {
    throw new NotFiniteError(`generate: at position ${position} ${reasonOf(error)}`, { cause: error });
  }
}

/** One forward through all stages, each rank's in order. */
export function forwardOf(placement: readonly number[], devices: number): Schedule {
  const make = actionMaker(1);
  const actions = Array.from(
    { length: devices },
    (_, rank) => [...placement.keys()].filter((stage) => placement[stage] === rank).map((stage) => make("F", stage, 0)),
  );
  return { name: "generate", placement, actions };
}

/** Refuses a model that cannot go on with a sequence. */
export function checkGenerates(model: Model): void {
  const { name, task, takes: { vocabulary, inputs }, layers } = model;
  if (task === "masked-token") {
    throw new UserError(
      `generate: ${name} fills in masked tokens and sees those behind; a model of the next token can go on`,
    );
  }
  if (vocabulary === undefined || inputs.length !== 1) {
    throw new UserError(`generate: ${name} takes no sequences of tokens; a language model can go on with one`);
  }
  const layer = layers.find(({ pieces }) => pieces === undefined);
  if (layer) {
    const of = layer.parameters[0]?.name;
    throw new UserError(
      `generate: ${name} has a layer ${
        of === undefined ? "without parameters" : `with "${of}"`
      } that cannot take a sequence ` +
        "piece by piece; each must say with `pieces` how it does, as those of llama() do",
    );
  }
  const [input] = [model.inputShape(1)];
  const output = layers.reduce((shape, each) => each.outputShape(shape), input);
  if (
    input[input.length - 1] === inputs[0] && output.length === 2 && output[0] === inputs[0] && output[1] === vocabulary
  ) {
    return;
  }
  throw new UserError(
    `generate: ${name} makes [${output}] of ${inputs[0]} tokens; logits are [${inputs[0]}, ${vocabulary}]`,
  );
}

export function checkPrompt(
  { name, takes: { inputs: [length], vocabulary } }: Model,
  prompt: ArrayLike<number>,
  stop: readonly number[],
) {
  const isToken = (value: unknown) =>
    Number.isInteger(value) && (value as number) >= 0 && (value as number) < vocabulary!;
  const right = `a whole number below ${vocabulary}, as many as tokens of ${name}`;
  if (typeof prompt !== "object" || !Number.isInteger(prompt?.length)) {
    throw new UserError("generate: the prompt must be a list of token ids, as a tokenizer's encode() gives");
  }
  if (prompt.length === 0) {
    throw new UserError("generate: the prompt has no token; one at least is needed to go on from");
  }
  if (prompt.length > length) {
    throw new UserError(`generate: the prompt has ${prompt.length} tokens, and ${name} takes ${length} at most`);
  }
  const at = Array.from(prompt).findIndex((token) => !isToken(token));
  if (at >= 0) throw new UserError(`generate: token ${at} of the prompt is ${prompt[at]}; it must be ${right}`);
  if (!Array.isArray(stop)) throw new UserError("generate: stop must be a list of token ids");
  const wrong = stop.find((token) => !isToken(token));
  if (wrong !== undefined) throw new UserError(`generate: stop has ${wrong}; it must be ${right}`);
}
