/** Batches, and where those of text come from: bytes as tokens. */
import { byteVocabulary } from "../bytes.ts";
import { UserError } from "../errors.ts";
import { anything, described, expectFields, expectValue, positive, u32 } from "../rules.ts";
import { ignored } from "../ops/loss.ts";
import { generator, hash } from "../random.ts";
import { positionOf, type SourcePosition, stateFrom } from "./position.ts";

export { ignored };

/** A typed array of a batch. */
export type BatchArray = Uint32Array | Float32Array;

/**
 * Samples and what a model is to make of them; every sample has as many inputs as the model's `takes` says, and as many targets as its
 * loss compares outputs with. Floats are read until the step that they are given to has ended, and must not change before;
 * u32 arrays are copied when it starts.
 */
export interface Batch {
  /** Number of samples, 1 or more. */
  readonly samples: number;
  /** Token ids below the vocabulary, u32, or finite numbers (pixels), f32, sample after sample. */
  readonly inputs: BatchArray;
  /** What the outputs are to be, sample after sample: classes or {@link ignored}, u32, or finite numbers, f32, as the loss asks. */
  readonly targets: BatchArray;
  /** Valid tokens of each sample, 1 or more, for models that look at whole sequences; all of them by default. */
  readonly lengths?: Uint32Array;
  /** The model's other side inputs by name, each sample after sample; those left out are what the model says of them. */
  readonly sides?: Readonly<Record<string, BatchArray>>;
  /** What random choices inside the model (dropout) depend on, a u32; 0 by default. */
  readonly seed?: number;
}

/** Draws batches without end; from files that are read as they are drawn, a batch is a promise. */
export interface BatchSource<Drawn extends Batch | Promise<Batch> = Batch | Promise<Batch>> {
  /**
   * Draws so many samples, 1 or more. The sources of this library throw a UserError for any other number.
   */
  next(samples: number): Drawn;
  /**
   * Where it stands after the batches that have been drawn, as plain JSON. The sources of this library have one, and an option
   * `from`: a source made with that goes on with the same batches, bit for bit.
   */
  position?(): SourcePosition;
}

/** A source that knows where it stands. */
export interface PositionedSource<Drawn extends Batch | Promise<Batch> = Batch | Promise<Batch>>
  extends BatchSource<Drawn> {
  /** Where it stands after the batches that have been drawn, as plain JSON: what its maker's option `from` takes. */
  position(): SourcePosition;
}

/** What {@link textSource} and {@link maskedTextSource} take. */
export interface TextSourceOptions {
  /** Tokens of a sequence. */
  readonly length: number;
  /** Equal seeds draw equal batches: a u32. */
  readonly seed: number;
  /** Where to go on: what `position()` of such a source of the same text has said. From the start by default. */
  readonly from?: SourcePosition;
}

/**
 * Draws sequences of `length` bytes from anywhere in `text`; the target of each is the byte after it. Equal seeds draw
 * equal sequences, and seeds for dropout.
 *
 * @throws {UserError} When the text is shorter than one sequence and the byte that follows it, `length` is less than 1, `seed`
 * no u32, or `from` the position of another source.
 */
export function textSource(text: Uint8Array, options: TextSourceOptions): PositionedSource<Batch> {
  expectFields("textSource", options, { length: positive, seed: u32, from: anything });
  const { length, seed, from } = options;
  expectText(text, length);
  const identity = { text: digest(text), length, seed };
  const { sequences, batches } = stateFrom("textSource", identity, { sequences: 0, batches: 0 }, from);
  const starts = generator(`text:${seed}`, sequences);
  const random = generator(`dropout:${seed}`, batches);
  const draw = () => sequence(text, length, starts.integer(text.length - length));
  return {
    position: () => positionOf("textSource", identity, { sequences: starts.drawn, batches: random.drawn }),
    next(samples) {
      expectSamples(samples);
      const inputs = new Uint32Array(samples * length);
      const targets = new Uint32Array(samples * length);
      for (let sample = 0; sample < samples; sample++) {
        const sequence = draw();
        inputs.set(sequence.subarray(0, length), sample * length);
        targets.set(sequence.subarray(1), sample * length);
      }
      return { samples, inputs, targets, seed: random.integer(2 ** 31) };
    },
  };
}

/**
 * Draws sequences as {@link textSource} does, for masked language models (Devlin et al., arXiv 1810.04805, section 3.1): 15 % of
 * the bytes are to be predicted; of these 80 % are replaced by the token `mask`, 10 % by a random byte, and 10 % stay.
 *
 * @throws {UserError} As {@link textSource}, or when `mask` is no u32.
 */
export function maskedTextSource(
  text: Uint8Array,
  options: TextSourceOptions & { readonly mask: number },
): PositionedSource<Batch> {
  expectFields("maskedTextSource", options, { length: positive, seed: u32, mask: u32, from: anything });
  const { length, seed, mask, from } = options;
  expectText(text, length);
  const identity = { text: digest(text), length, seed, mask };
  const { sequences, choices } = stateFrom("maskedTextSource", identity, { sequences: 0, choices: 0 }, from);
  const starts = generator(`text:${seed}`, sequences);
  const random = generator(`masks:${seed}`, choices);
  const draw = () => sequence(text, length, starts.integer(text.length - length));
  return {
    position: () => positionOf("maskedTextSource", identity, { sequences: starts.drawn, choices: random.drawn }),
    next(samples) {
      expectSamples(samples);
      const inputs = new Uint32Array(samples * length);
      const targets = new Uint32Array(samples * length).fill(ignored);
      for (let sample = 0; sample < samples; sample++) inputs.set(draw().subarray(0, length), sample * length);
      for (let at = 0; at < inputs.length; at++) {
        // The first byte of a batch is always asked for: a batch without a question has no loss.
        if (at > 0 && random.uniform() >= 0.15) continue;
        targets[at] = inputs[at];
        const choice = random.uniform();
        if (choice < 0.8) inputs[at] = mask;
        else if (choice < 0.9) inputs[at] = random.integer(byteVocabulary);
      }
      return { samples, inputs, targets, seed: random.integer(2 ** 31) };
    },
  };
}

/** A stretch of `length` + 1 bytes. */
const sequence = (text: Uint8Array, length: number, start: number) => text.subarray(start, start + length + 1);

/** Tells texts apart: their size, and a hash of what stands at up to 4096 places. */
function digest(text: Uint8Array): string {
  const step = Math.ceil(text.length / 4096);
  let places = "";
  for (let at = 0; at < text.length; at += step) places += String.fromCharCode(text[at]);
  return `${text.length} bytes, ${hash(places).toString(16)}`;
}

function expectText(text: Uint8Array, length: number): void {
  if (!(text instanceof Uint8Array)) {
    throw new UserError(
      `A text must be a Uint8Array, its bytes (\`new TextEncoder().encode(text)\`), not ${described(text)}`,
    );
  }
  if (text.length < length + 1) {
    throw new UserError(`The text has ${text.length} bytes; a sequence needs at least ${length + 1}`);
  }
}

/**
 * What every source of batches asks of the number of samples that it is to draw.
 *
 * @throws {UserError} Unless it is a whole number, 1 or more.
 */
export function expectSamples(samples: number): void {
  expectValue("The samples to draw", samples, positive);
}

/** The same batch, each of its arrays replaced. */
export function mapArrays(batch: Batch, change: <Values extends BatchArray>(array: Values) => Values): Batch {
  const { inputs, targets, lengths, sides } = batch;
  return {
    ...batch,
    inputs: change(inputs),
    targets: change(targets),
    ...lengths ? { lengths: change(lengths) } : {},
    ...sides ? { sides: Object.fromEntries(Object.entries(sides).map(([name, side]) => [name, change(side)])) } : {},
  };
}

/** Micro-batch `index` of `count`, as a batch. */
export function microbatchOf(batch: Batch, index: number, count: number): Batch {
  const part = <Values extends BatchArray>(array: Values) =>
    array.subarray(index * array.length / count, (index + 1) * array.length / count) as Values;
  return { ...mapArrays(batch, part), samples: batch.samples / count };
}
