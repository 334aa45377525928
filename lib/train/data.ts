/** Batches of text: bytes as tokens. */
import { UserError } from "../errors.ts";
import { generator } from "./random.ts";

/** Sequences of tokens and, for each token, the one that follows it. */
export interface Batch {
  /** Number of sequences. */
  readonly sequences: number;
  /** Tokens in a sequence. */
  readonly length: number;
  /** Token ids, sequences x length. */
  readonly inputs: Uint32Array;
  /** The token after each of the inputs, as many. */
  readonly targets: Uint32Array;
}

/** Draws batches without end. */
export interface TextSource {
  /** Draws so many sequences. */
  next(sequences: number): Batch;
}

/** Number of different tokens that text has here: the values of a byte. */
export const byteVocabulary = 256;

/**
 * Draws sequences of `length` bytes from anywhere in `text`. Equal seeds draw equal sequences.
 *
 * @throws {UserError} When the text is shorter than one sequence and the byte that follows it.
 */
export function textSource(text: Uint8Array, { length, seed }: { length: number; seed: number }): TextSource {
  if (text.length < length + 1) {
    throw new UserError(`The text has ${text.length} bytes; a sequence needs at least ${length + 1}`);
  }
  const random = generator(`text:${seed}`);
  return {
    next(sequences) {
      const inputs = new Uint32Array(sequences * length);
      const targets = new Uint32Array(sequences * length);
      for (let sequence = 0; sequence < sequences; sequence++) {
        const start = random.integer(text.length - length);
        inputs.set(text.subarray(start, start + length), sequence * length);
        targets.set(text.subarray(start + 1, start + length + 1), sequence * length);
      }
      return { sequences, length, inputs, targets };
    },
  };
}

/** Throws unless the batch can be cut into so many equal micro-batches of whole sequences. */
export function checkBatch(batch: Batch, microbatches: number): void {
  if (batch.sequences % microbatches !== 0 || batch.sequences < 1) {
    throw new UserError(
      `A batch of ${batch.sequences} sequences cannot be cut into ${microbatches} equal micro-batches`,
    );
  }
}

/** Micro-batch `index` of `count`. */
export function microbatchOf(batch: Batch, index: number, count: number): Pick<Batch, "inputs" | "targets"> {
  const tokens = batch.inputs.length / count;
  const range = [index * tokens, (index + 1) * tokens] as const;
  return { inputs: batch.inputs.subarray(...range), targets: batch.targets.subarray(...range) };
}
