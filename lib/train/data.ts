/** Batches, and where those of text come from: bytes as tokens. */
import { byteVocabulary } from "../bytes.ts";
import { UserError } from "../errors.ts";
import { described, expectFields, expectValue, positive, u32 } from "../rules.ts";
import { ignored } from "../ops/loss.ts";
import { generator } from "../random.ts";

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
}

/**
 * Draws sequences of `length` bytes from anywhere in `text`; the target of each is the byte after it. Equal seeds draw
 * equal sequences, and seeds for dropout.
 *
 * @throws {UserError} When the text is shorter than one sequence and the byte that follows it, `length` is less than 1, or `seed`
 * no u32.
 */
export function textSource(text: Uint8Array, options: { length: number; seed: number }): BatchSource<Batch> {
  expectFields("textSource", options, { length: positive, seed: u32 });
  const { length, seed } = options;
  const draw = sequences(text, options);
  const random = generator(`dropout:${seed}`);
  return {
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
  options: { length: number; seed: number; mask: number },
): BatchSource<Batch> {
  expectFields("maskedTextSource", options, { length: positive, seed: u32, mask: u32 });
  const { length, seed, mask } = options;
  const draw = sequences(text, options);
  const random = generator(`masks:${seed}`);
  return {
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

/** Draws stretches of `length` + 1 bytes. */
function sequences(text: Uint8Array, { length, seed }: { length: number; seed: number }): () => Uint8Array {
  if (!(text instanceof Uint8Array)) {
    throw new UserError(
      `A text must be a Uint8Array, its bytes (\`new TextEncoder().encode(text)\`), not ${described(text)}`,
    );
  }
  if (text.length < length + 1) {
    throw new UserError(`The text has ${text.length} bytes; a sequence needs at least ${length + 1}`);
  }
  const random = generator(`text:${seed}`);
  return () => {
    const start = random.integer(text.length - length);
    return text.subarray(start, start + length + 1);
  };
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
