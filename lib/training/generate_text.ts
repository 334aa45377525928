/** Text that a pipeline goes on with. */
import { UserError } from "../errors.ts";
import { callback, expectFields, expectValue, having, optional, type Rules, string } from "../rules.ts";
import type { GenerationOptions, GenerationResult } from "../runtime/generate.ts";
import type { Pipeline } from "../runtime/pipeline.ts";
import { byteTokenizer, type Tokenizer } from "../train/tokenizer.ts";

/** What is gone on with, and how. */
export interface GenerateTextOptions extends Omit<GenerationOptions, "vocabulary"> {
  /** What the text begins with. */
  readonly prompt: string;
  /** Makes its tokens; bytes by default. Where it has a token that ends documents, that ends the text, unless `stop` says otherwise. */
  readonly tokenizer?: Tokenizer;
  /** Called with each new piece of the text, which ends where a character does. */
  readonly onText?: (piece: string) => void;
}

/** What came of it. */
export interface GeneratedText extends GenerationResult {
  /** The new text, without the prompt: all pieces together. */
  readonly text: string;
}

const own: Rules<Pick<GenerateTextOptions, "prompt" | "tokenizer" | "onText">> = {
  prompt: string,
  tokenizer: optional({ ...having("encode", "decode"), right: "a Tokenizer, as loadTokenizer() gives" }),
  onText: optional(callback),
};

/**
 * Goes on with a text, token by token: `pipeline.generate()` with a tokenizer.
 *
 * ```ts
 * import { adamw, createModel, createPipeline, generate, openDevices, textSource } from "twobp";
 * import { generateText } from "twobp/train";
 *
 * const set = await openDevices(2);
 * const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw({ learningRate: 0.003 }) });
 * const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
 * const schedule = generate("1f1b-1", { devices: 2 });
 * for (let i = 0; i < 10; i++) await pipeline.step(schedule, source.next(4));
 * const { text } = await generateText(pipeline, { prompt: "to be", temperature: 0.7, topK: 20, seed: 3, tokens: 40 });
 * console.log(text);
 * pipeline.close();
 * set.close();
 * ```
 *
 * @throws {UserError} What `pipeline.generate()` refuses, and a tokenizer that has more tokens than the model.
 * @throws {Error} When a rank fails, or logits are not finite.
 */
export async function generateText(pipeline: Pipeline, options: GenerateTextOptions): Promise<GeneratedText> {
  expectValue("generateText: the pipeline", pipeline, {
    ...having("generate", "step"),
    right: "a Pipeline, as createPipeline() returns",
  });
  const { prompt, tokenizer = byteTokenizer(), onText, ...rest } = options ?? {};
  expectFields("generateText", { prompt, tokenizer, ...onText === undefined ? {} : { onText } }, own);
  const { name, takes: { vocabulary } } = pipeline.model;
  if (vocabulary === undefined) throw new UserError(`generateText: ${name} takes no token ids, so no texts`);
  if (tokenizer.vocabulary > vocabulary) {
    throw new UserError(
      `generateText: the tokenizer has ${tokenizer.vocabulary} tokens, ${name} only ${vocabulary}: give the tokenizer that it was trained with`,
    );
  }
  if (prompt === "" && tokenizer.encode(prompt).length === 0) {
    throw new UserError(
      "generateText: the prompt is empty, and the tokenizer begins a text with no token; give a prompt",
    );
  }
  const ids = Array.from(tokenizer.encode(prompt));
  let text = "";
  const say = (piece: string) => {
    text += piece;
    if (piece !== "") onText?.(piece);
  };
  const reader = pieceReader(tokenizer, ids);
  const result = await pipeline.generate(ids, {
    ...tokenizer.end === undefined ? {} : { stop: [tokenizer.end] },
    ...rest,
    vocabulary: tokenizer.vocabulary,
    onToken(token) {
      say(reader.next(token.token));
      rest.onToken?.(token);
    },
  });
  say(reader.rest());
  return { ...result, text };
}

/** Makes text of one token after another. */
function pieceReader(tokenizer: Tokenizer, prompt: readonly number[]) {
  // What a token stands for depends on those before it (blanks between words), but not on those long before: decoded are the tokens
  // of the last two pieces.
  let known = Array.from(prompt), fresh: number[] = [];
  const take = () => {
    const before = tokenizer.decode(known), all = tokenizer.decode([...known, ...fresh]);
    return all.slice(before.length);
  };
  return {
    /** What is new, and nothing as long as it ends in the middle of a character. */
    next(token: number): string {
      fresh.push(token);
      const piece = take();
      if (piece === "" || piece.endsWith("\ufffd")) return "";
      [known, fresh] = [fresh, []];
      return piece;
    },
    /** What is left at the end, whole or not. */
    rest: () => fresh.length === 0 ? "" : take(),
  };
}
