/** BERT's input (Devlin et al., arXiv 1810.04805, section 3): token, position and token-type embeddings, added up. */
import { UserError } from "../errors.ts";
import { addBias, columnSum } from "../ops/bias.ts";
import { bytesOf, joinAdjacent, sizeOf, type Tensor } from "../tensor.ts";
import { composed } from "./composite.ts";
import { embedding } from "./embedding.ts";
import type { Layer } from "./layer.ts";
import { butFrozen, isTrained, type Parameter, parameter, type Trainable } from "./parameter.ts";
import { backwardInput, forward } from "./run.ts";

/** Shape of an embedding with learned positions. */
export interface PositionedEmbeddingOptions {
  /** Number of different tokens. */
  readonly vocabulary: number;
  /** Features of a token. */
  readonly width: number;
  /** Positions that the table has. */
  readonly positions: number;
  /** Token types; here all tokens are of the first, as in a batch of single sentences. */
  readonly types: number;
  /** Tokens in a sequence, at most `positions`: row r of a micro-batch is at position r % length. */
  readonly length: number;
  /** Which of the three tables are trained; all by default. */
  readonly trainable?: Trainable;
}

/** An embedding whose token table can be tied to an output head. */
export interface PositionedEmbedding extends Layer {
  /** The token table, [vocabulary, width]. */
  readonly table: Parameter;
}

/**
 * Row `id` of a token table, plus row `position` of a second one, plus row 0 of a third. Its input is packed ids, u32 [2, rows]
 * (see `packIds`). It has no input gradient, backward-p2 only.
 *
 * @throws {UserError} When sequences are longer than there are positions.
 */
export function positionedEmbedding(
  name: string,
  options: PositionedEmbeddingOptions,
): PositionedEmbedding {
  const { vocabulary, width, positions, types, length, trainable = true } = options;
  if (length > positions) {
    throw new UserError(`${name}: sequences of ${length} tokens need more than ${positions} positions`);
  }
  const tokens = embedding(`${name}.token`, vocabulary, width, trainable);
  const position = parameter(`${name}.position.weight`, [positions, width], { normal: 0.02 }, trainable);
  const type = parameter(`${name}.type.weight`, [types, width], { normal: 0.02 }, trainable);
  const trainsPosition = isTrained(position), trainsType = isTrained(type), trainsOwn = trainsPosition || trainsType;
  // What is added to a sequence as a whole: the first positions in one stretch.
  const sequence = (table: Tensor) => reshaped(table, [length * width]);
  const row = (table: Tensor) => reshaped(table, [width]);
  const asSequences = (y: Tensor) => reshaped(y, [sizeOf(y.shape) / (length * width), length * width]);
  const layer = composed({ token: tokens }, {
    parameters: [position, type],
    reads: { ...tokens.reads, gradient: tokens.reads.gradient || trainsOwn },
    outputShape: tokens.outputShape,
    flops: (shape) => {
      const { f, i, w } = tokens.flops(shape);
      const each = shape[1] * width;
      return { f: f + 2 * each, i, w: w + (Number(trainsPosition) + Number(trainsType)) * each };
    },
    forward(y, ids, saved) {
      forward(tokens, y, ids, saved.child("token"));
      addBias(asSequences(y), sequence(saved.value(position)));
      addBias(y, row(saved.value(type)));
    },
    backwardInput(dx, dy, saved) {
      backwardInput(tokens, dx, dy, saved.child("token"));
      if (trainsOwn) saved.keep("dy", dy);
    },
    backwardWeight(saved) {
      if (!trainsOwn) return;
      const [{ gradient }] = saved;
      for (const [dy] of joinAdjacent(saved.map((each) => [each.get("dy")] as const))) {
        if (trainsPosition) columnSum(sequence(gradient(position)), asSequences(dy));
        if (trainsType) columnSum(row(gradient(type)), dy);
      }
    },
    freeze: (isFrozen) => positionedEmbedding(name, { ...options, trainable: butFrozen(trainable, isFrozen) }),
  });
  return { ...layer, table: tokens.parameters[0] };
}

/** The beginning of a tensor in another shape; holds no reference. */
function reshaped(tensor: Tensor, shape: readonly number[]): Tensor {
  return { ...tensor, shape, bytes: bytesOf(shape, tensor.dtype) };
}
