/** BERT's input (Devlin et al., arXiv 1810.04805, section 3): token, position and token-type embeddings, added up. */
import { UserError } from "../errors.ts";
import { addBias, columnSum } from "../ops/bias.ts";
import { bytesOf, joinAdjacent, sizeOf, type Tensor } from "../tensor.ts";
import { composed } from "./composite.ts";
import { embedding } from "./embedding.ts";
import type { Layer } from "./layer.ts";
import { type Parameter, parameter } from "./parameter.ts";
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
  { vocabulary, width, positions, types, length }: PositionedEmbeddingOptions,
): PositionedEmbedding {
  if (length > positions) {
    throw new UserError(`${name}: sequences of ${length} tokens need more than ${positions} positions`);
  }
  const tokens = embedding(`${name}.token`, vocabulary, width);
  const position = parameter(`${name}.position.weight`, [positions, width], { normal: 0.02 });
  const type = parameter(`${name}.type.weight`, [types, width], { normal: 0.02 });
  // What is added to a sequence as a whole: the first positions in one stretch.
  const sequence = (table: Tensor) => reshaped(table, [length * width]);
  const row = (table: Tensor) => reshaped(table, [width]);
  const asSequences = (y: Tensor) => reshaped(y, [sizeOf(y.shape) / (length * width), length * width]);
  const layer = composed({ token: tokens }, {
    parameters: [position, type],
    reads: tokens.reads,
    outputShape: tokens.outputShape,
    flops: (shape) => {
      const { f, i, w } = tokens.flops(shape);
      return { f: f + 2 * shape[1] * width, i, w: w + 2 * shape[1] * width };
    },
    forward(y, ids, saved) {
      forward(tokens, y, ids, saved.child("token"));
      addBias(asSequences(y), sequence(saved.value(position)));
      addBias(y, row(saved.value(type)));
    },
    backwardInput(dx, dy, saved) {
      backwardInput(tokens, dx, dy, saved.child("token"));
      saved.keep("dy", dy);
    },
    backwardWeight(saved) {
      const [{ gradient }] = saved;
      for (const [dy] of joinAdjacent(saved.map((each) => [each.get("dy")] as const))) {
        columnSum(sequence(gradient(position)), asSequences(dy));
        columnSum(row(gradient(type)), dy);
      }
    },
  });
  return { ...layer, table: tokens.parameters[0] };
}

/** The beginning of a tensor in another shape; holds no reference. */
function reshaped(tensor: Tensor, shape: readonly number[]): Tensor {
  return { ...tensor, shape, bytes: bytesOf(shape, tensor.dtype) };
}
