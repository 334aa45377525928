/** Texts on disk as batches for language models. */
import { basename } from "node:path";
import type { Model } from "../models/model.ts";
import { UserError } from "../errors.ts";
import { generator, hash } from "../random.ts";
import {
  anything,
  expectFields,
  expectValue,
  flag,
  having,
  listOf,
  oneOf,
  optional,
  positive,
  type Rule,
  string,
  u32,
} from "../rules.ts";
import { type Batch, expectSamples, type PositionedSource } from "./data.ts";
import { documentStream } from "./document_stream.ts";
import type { Block } from "./file_blocks.ts";
import { expectPart, heldOut as heldOutOf, type Part, share } from "./held_out.ts";
import { maskTokens } from "./mask_tokens.ts";
import { oneAtATime } from "./one_at_a_time.ts";
import { type Cursor, packing, type Sequence } from "./packing.ts";
import { positionOf, type SourcePosition, stateFrom } from "./position.ts";
import { blocksOf, sizeOfFile, textFiles } from "./text_files.ts";
import { byteTokenizer, type Tokenizer } from "./tokenizer.ts";

/** What {@link openCorpus} takes. */
export interface CorpusOptions {
  /** Where a line of JSON or a row of Parquet has its text; "text" by default. */
  readonly field?: string;
  /** Which files of a folder are read, by their paths; those named .txt, .md, .jsonl, .ndjson and .parquet by default. */
  readonly match?: RegExp;
  /** The share of the documents that is held out of training, up to 0.5; none by default. */
  readonly heldOut?: number;
}

/** What batches are drawn by. */
export interface CorpusBatches {
  /** The model that takes them, which says how long sequences are and what is to be predicted. */
  readonly model: Model;
  /** Equal seeds draw equal batches: a u32. */
  readonly seed: number;
  /** What makes tokens of a text; {@link byteTokenizer} by default. */
  readonly tokenizer?: Tokenizer;
  /**
   * "joined", the default: documents one behind the other, without gaps. "apart": each sequence has tokens of one document
   * alone, and what is left of it is filler, which is no target and which no token sees.
   */
  readonly documents?: "joined" | "apart";
  /** Whether documents come in an order of the seed; true by default. */
  readonly shuffle?: boolean;
  /** The most bytes of text that are in memory and shuffled at a time; 32 MiB by default. */
  readonly window?: number;
  /** Where to go on: what `position()` of such a source of the same corpus has said. From the start by default. */
  readonly from?: SourcePosition;
}

/** Texts on disk, looked through and not kept. */
export interface Corpus {
  /** The files, in the order of their documents. */
  readonly files: readonly string[];
  /** Bytes of text. */
  readonly bytes: number;
  /** Documents to train on. */
  readonly documents: number;
  /** Documents that are held out. */
  readonly heldOut: number;
  /**
   * Batches of what is trained on, without end.
   *
   * @throws {UserError} When the model takes no tokens or fewer than the tokenizer has, `from` is the position of another source, or
   * there are no documents; and, when one is drawn, on what the file or the tokenizer refuses.
   */
  train(options: CorpusBatches): PositionedSource<Promise<Batch>>;
  /**
   * Batches of what is held out, without end. Made anew, a source draws the same ones again.
   *
   * @throws {UserError} As `train`.
   */
  held(options: CorpusBatches): PositionedSource<Promise<Batch>>;
}

const batchesRules = {
  model: anything, // by `expectTokens`
  seed: u32,
  tokenizer: optional({
    ...having("encode", "decode"),
    right: "a Tokenizer, as loadTokenizer() and byteTokenizer() return",
  }),
  documents: optional(oneOf(["joined", "apart"])),
  shuffle: optional(flag),
  window: optional(positive),
  from: anything, // by `stateFrom`
};
const modelRule: Rule = {
  right: "a model, as createModel() returns",
  accepts: (value) => typeof value === "object" && value !== null && "takes" in value,
};
const regularExpression: Rule = {
  right: "a regular expression without the flags g and y",
  accepts: (value) => value instanceof RegExp && !value.global && !value.sticky,
};
const usualWindow = 2 ** 25;

/**
 * Texts on disk as batches for language models: files or folders of text, JSON lines (`.jsonl`, `.ndjson`) or Parquet (`.parquet`).
 * They are read piece by piece, so that they may be larger than memory. A line of JSON or a row of Parquet is a document; text is cut
 * into passages of up to 16 KiB, which are documents. No token is to predict what stands in another document.
 *
 * ```ts
 * import { createModel } from "twobp";
 * import { openCorpus } from "twobp/train";
 *
 * const corpus = await openCorpus("stories.jsonl", { heldOut: 0.1 });
 * const model = createModel("llama-tiny"); // its tokens are bytes
 * const source = corpus.train({ model, seed: 1 });
 * const { inputs } = await source.next(8);
 * const saved = JSON.stringify(source.position());
 * const later = corpus.train({ model, seed: 1, from: JSON.parse(saved) }); // goes on where `source` stands
 * console.log(corpus.documents, corpus.heldOut, inputs.length, (await later.next(8)).samples);
 * ```
 *
 * Text and JSON lines are looked through once when they are opened: what is wrong with a line is said then. Of Parquet only what
 * the file says of itself is read.
 *
 * @throws {UserError} When a file cannot be read, is empty, is not UTF-8, or has a line that is no object with a text in `field`; when a
 * Parquet file has no such column; when a folder has no such files; or when `heldOut` holds nothing out.
 */
export async function openCorpus(path: string | readonly string[], options: CorpusOptions = {}): Promise<Corpus> {
  expectFields("openCorpus", options, {
    field: optional(string),
    match: optional(regularExpression),
    heldOut: optional(share),
  });
  const paths = typeof path === "string" ? [path] : path;
  expectValue("openCorpus: path", paths, listOf(string));
  const { field = "text", match, heldOut = 0 } = options;
  const files = textFiles(paths, match);
  const blocks: Block[] = [];
  for (const file of files) {
    for (const block of await blocksOf(file, field)) blocks.push(block);
  }
  const all = blocks.reduce((sum, { documents }) => sum + documents, 0);
  let held = 0;
  const isHeldOut = heldOutOf(heldOut);
  for (let n = 0; heldOut > 0 && n < all; n++) held += Number(isHeldOut(n));
  if (heldOut > 0) expectPart("documents", all, held, "held-out", heldOut);
  expectPart("documents", all, all - held, "train", heldOut);
  const bytes = blocks.reduce((sum, block) => sum + block.bytes, 0);
  const sizes = files.map((file) => `${basename(file)} ${sizeOfFile(file)}`);
  const digests = blocks.flatMap(({ digest }) => digest ?? []);
  const contents = hash([...sizes, ...digests].join("\n")).toString(16);
  const part = (part: Part) => (options: CorpusBatches) => {
    expectPart("documents", all, part === "train" ? all - held : held, part, heldOut);
    const identity = { files: contents, part, heldOut, field };
    return batches(part === "train" ? "Corpus.train" : "Corpus.held", blocks, identity, options);
  };
  return { files, bytes, documents: all - held, heldOut: held, train: part("train"), held: part("held-out") };
}

function batches(
  owner: string,
  blocks: readonly Block[],
  data: { files: string; part: Part; heldOut: number; field: string },
  options: CorpusBatches,
): PositionedSource<Promise<Batch>> {
  expectFields(owner, options, batchesRules);
  const { model, seed, tokenizer = byteTokenizer(), documents = "joined", shuffle = true, window = usualWindow } =
    options;
  const length = expectTokens(owner, model, tokenizer);
  const isHeldOut = heldOutOf(data.heldOut);
  const isMasked = model.task === "masked-token";
  const { mask } = model.configuration, { end } = tokenizer;
  if (isMasked && mask === undefined) {
    throw new UserError(`${owner}: ${model.name} learns masked tokens, and its configuration has no \`mask\``);
  }
  const identity = {
    ...{ ...data, seed, length, layout: documents, shuffle: String(shuffle), windowBytes: window },
    ...{ tokenizer: tokenizer.name, task: model.task },
  };
  const start = { epoch: 0, window: 0, document: 0, token: 0, sequences: 0 };
  let cursor: Cursor = stateFrom("corpus", identity, start, options.from);
  const next = packing(
    documentStream(blocks, {
      ...{ seed, shuffle, window },
      isDrawn: (n) => isHeldOut(n) === (data.part === "held-out"),
    }),
    {
      ...{ length, documents, filler: end ?? 0, withLast: isMasked || documents === "joined" },
      tokens: (text) => checked(tokenizer, text),
    },
  );
  const inTurn = oneAtATime();

  async function draw(samples: number): Promise<Batch> {
    const sequences: Sequence[] = [];
    const first = cursor.sequences;
    let at = cursor;
    while (sequences.length < samples) {
      const drawn = await next(at);
      sequences.push(drawn.sequence);
      at = drawn.next;
    }
    const batch = batchOf(sequences, model, generator(`dropout:${seed}:${first}`).integer(2 ** 31));
    const masked = isMasked ? maskTokens(batch, sequences, tokenizer, mask, `masks:${seed}:${first}`) : batch;
    cursor = at; // only now: a batch that fails has not been drawn
    return masked;
  }

  return {
    position: () => positionOf("corpus", identity, { ...cursor }),
    next(samples) {
      expectSamples(samples);
      return inTurn(() => draw(samples));
    },
  };
}

function batchOf(sequences: readonly Sequence[], model: Model, seed: number): Batch {
  const joined = (name: "tokens" | "following" | "starts") => {
    const length = sequences[0].tokens.length;
    const all = new Uint32Array(sequences.length * length);
    sequences.forEach((sequence, i) => all.set(sequence[name], i * length));
    return all;
  };
  const { lengths, starts } = model.takes.sides ?? {};
  return {
    ...{ samples: sequences.length, inputs: joined("tokens"), targets: joined("following"), seed },
    ...lengths ? { lengths: Uint32Array.from(sequences, ({ used }) => used) } : {},
    ...starts ? { sides: { starts: joined("starts") } } : {},
  };
}

/** Tokens of a document and what ends it. */
function checked(tokenizer: Tokenizer, text: string): ArrayLike<number> {
  const { name, vocabulary, end } = tokenizer;
  const ids = tokenizer.encode(text);
  if (end !== undefined && !(u32.accepts(end) && end < vocabulary)) {
    throw new UserError(`The tokenizer "${name}" ends documents with ${end}; its tokens are 0 to ${vocabulary - 1}`);
  }
  for (let i = 0; i < ids.length; i++) {
    if (u32.accepts(ids[i]) && ids[i] < vocabulary) continue;
    throw new UserError(`The tokenizer "${name}" gave token ${ids[i]}; its tokens are 0 to ${vocabulary - 1}`);
  }
  return end === undefined || (ids.length > 0 && ids[ids.length - 1] === end) ? ids : [...Array.from(ids), end];
}

/**
 * The length of a model's sequences.
 *
 * @throws {UserError} Unless it takes token ids, and as many as the tokenizer has.
 */
function expectTokens(owner: string, model: Model, tokenizer: Tokenizer): number {
  expectValue(`${owner}: model`, model, modelRule);
  const { inputs, vocabulary } = model.takes;
  expectValue(`${owner}: the vocabulary of the tokenizer`, tokenizer.vocabulary, positive);
  if (vocabulary === undefined) throw new UserError(`${owner}: ${model.name} takes no token ids, so no texts`);
  if (tokenizer.vocabulary > vocabulary) {
    throw new UserError(
      `${owner}: the tokenizer has ${tokenizer.vocabulary} tokens, ${model.name} only ${vocabulary}: ` +
        "take its own tokenizer, or a model with as large a vocabulary",
    );
  }
  return inputs[0];
}
