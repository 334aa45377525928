/** Self-attention: y = out(attention(rope(qkv(x)))). */
import { UserError } from "../errors.ts";
import { attention, attentionBackward, type AttentionMasks, chooseAttention, qkvWidth } from "../ops/attention.ts";
import { appendKeys, cachedAttention, keptWidth } from "../ops/cached_attention.ts";
import { rope, ropeBackward, type RopeScaling } from "../ops/rope.ts";
import { hash } from "../random.ts";
import type { Tensor } from "../tensor.ts";
import { between, composed } from "./composite.ts";
import { checkRate } from "./dropout.ts";
import { expectInput, type Layer } from "./layer.ts";
import { linear } from "./linear.ts";
import type { Trainable } from "./parameter.ts";
import { type Past, piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";
import type { Saved } from "./saved.ts";

/** Shape of a self-attention layer. The defaults are those of LLaMa. */
export interface AttentionOptions {
  /** Features of x and y. */
  readonly width: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads, as many by default; fewer are shared by `heads / kvHeads` neighbouring query heads each. */
  readonly kvHeads?: number;
  /** Features of a head; by default the heads share the width. */
  readonly headSize?: number;
  /** Tokens in a sequence: a micro-batch of R rows holds R / length sequences. */
  readonly length: number;
  /** Standard deviation that the output projection starts with. */
  readonly outputDeviation: number;
  /** Whether a token sees those up to itself only; true by default. */
  readonly causal?: boolean;
  /** Whether queries and keys are turned by their positions; true by default. */
  readonly rotary?: boolean;
  /** Base of the frequencies that they are turned with; 10,000 by default. */
  readonly ropeTheta?: number;
  /** How these are stretched for long contexts; not at all by default. */
  readonly ropeScaling?: RopeScaling;
  /** Whether the projections have biases, all of them or those of queries, keys and values alone; false by default. */
  readonly bias?: boolean | "qkv";
  /** Whether the side input "lengths" says where sequences end, beyond which tokens see but are not seen; false by default. */
  readonly padded?: boolean;
  /**
   * Whether the side input "starts", u32 [length], says for each token where in the sequence its document starts, before which it sees
   * nothing; false by default. For causal attention that is not `padded`.
   */
  readonly documents?: boolean;
  /** Share of the probabilities that are dropped; 0 by default. */
  readonly dropout?: number;
  /** Which parameters are trained; all by default. */
  readonly trainable?: Trainable;
}

/**
 * The attention of a transformer block, without normalisation and residual (see `preNorm` and `postNorm`). Query, key and
 * value are one projection, so that each pass runs one matmul for the three. The attention core has no parameters: I
 * releases its tensors at once.
 *
 * @throws {UserError} When the heads do not divide the width and have no `headSize` of their own, when that is odd with `rotary`,
 * `kvHeads` does not divide the heads, or `documents` are to be kept apart where they cannot be.
 */
export function selfAttention(name: string, options: AttentionOptions): Layer {
  const { width, heads, kvHeads = heads, headSize = width / heads, outputDeviation } = options;
  const {
    causal = true,
    rotary = true,
    bias = false,
    padded = false,
    documents = false,
    dropout = 0,
    trainable = true,
  } = options;
  if (!Number.isInteger(headSize) || headSize < 1 || (rotary && headSize % 2)) {
    const size = rotary ? "even" : "whole";
    throw new UserError(
      options.headSize === undefined
        ? `${name}: width ${width} over ${heads} heads gives no ${size} head size; heads must divide the width into ${size} numbers`
        : `${name}: headSize ${headSize} must be ${size}${rotary ? ", since positions turn pairs of features" : ""}`,
    );
  }
  if (heads % kvHeads !== 0) {
    throw new UserError(
      `${name}: ${heads} query heads cannot share ${kvHeads} key and value heads evenly; kvHeads must divide heads`,
    );
  }
  checkRate(name, dropout);
  if (documents && (!causal || padded)) {
    throw new UserError(`${name}: only causal attention that is not padded can keep documents apart`);
  }
  const sizes = { q: heads * headSize, k: kvHeads * headSize, v: kvHeads * headSize };
  const parts = Object.entries(sizes).map(([part, outputs]) => ({ name: `${name}.${part}`, outputs }));
  const packed = qkvWidth({ heads, kvHeads, headSize });
  const initial = { normal: outputDeviation };
  return attending(
    name,
    options,
    linear(`${name}.qkv`, width, packed, { bias: bias !== false, parts, trainable }),
    linear(`${name}.out`, sizes.q, width, { initial, bias: bias === true, trainable }),
  );
}

/** Of these projections, or what stands for them. */
function attending(name: string, options: AttentionOptions, qkvProjection: Layer, output: Layer): Layer {
  const { width, heads, kvHeads = heads, headSize = width / heads, length, causal = true, dropout = 0 } = options;
  const { rotary = true, ropeTheta, ropeScaling, padded = false, documents = false } = options;
  const packed = qkvWidth({ heads, kvHeads, headSize });
  const inner = heads * headSize;
  const positions = {
    length,
    heads: heads + kvHeads,
    headSize,
    rowStride: packed,
    base: ropeTheta,
    scaling: ropeScaling,
  };
  const core = (rows: number) => ({ sequences: rows / length, length, heads, kvHeads, headSize, causal });
  const salt = hash(name);
  const masks = (saved: Saved): AttentionMasks => ({
    ...(padded ? { lengths: saved.side("lengths") } : {}),
    ...(documents ? { starts: saved.side("starts") } : {}),
    ...(dropout > 0 && !saved.evaluating ? { dropout: { rate: dropout, salt, seed: saved.side("seed") } } : {}),
  });

  /** The next rows of one sequence, which see those before them and are kept for those behind; dropout is off, and it is one document. */
  function forwardPiece(y: Tensor, x: Tensor, saved: Saved, past: Past) {
    const rows = x.shape[0], shape = { heads, kvHeads, headSize };
    const qkv = saved.scratch([rows, packed], y.dtype, "activations");
    forward(qkvProjection, qkv, x, saved.child("qkv"));
    if (rotary) rope(qkv, { ...positions, length: rows }, past.before);
    const keys = past.rows("keys", keptWidth(shape), y.dtype);
    appendKeys(keys, qkv, past.before, shape);
    const context = saved.scratch([rows, inner], y.dtype, "activations");
    if (past.position === 0 && rows > 1) {
      const whole = { sequences: 1, length: rows, ...shape };
      const needed = chooseAttention(x.device.gpu, whole, y.dtype, {}).keeps(whole, y.dtype);
      attention(context, saved.scratch(needed.shape, needed.dtype, "activations"), qkv, whole);
    } else cachedAttention(context, qkv, keys, past.before, shape);
    forward(output, y, context, saved.child("out", { unread: saved.unread }));
  }

  return composed({ qkv: qkvProjection, out: output }, {
    ...causal && !padded ? piecesOf(qkvProjection, output, { pieces: "past" }) : {},
    reads: {
      input: qkvProjection.reads.input,
      gradient: output.reads.gradient,
      sides: [...(padded ? ["lengths"] : []), ...(documents ? ["starts"] : []), ...(dropout > 0 ? ["seed"] : [])],
    },
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops(shape) {
      const [q, o] = [qkvProjection.flops(shape), output.flops(shape)];
      const scores = 4 * shape[0] * length * inner; // scores and weighted sum, each over the whole square
      return { f: q.f + o.f + scores, i: q.i + o.i + 2 * scores, w: q.w + o.w, recompute: q.f + scores };
    },
    forward(y, x, saved) {
      if (saved.past) return forwardPiece(y, x, saved, saved.past);
      const rows = x.shape[0];
      const qkv = saved.scratch([rows, packed], y.dtype, "activations");
      forward(qkvProjection, qkv, x, saved.child("qkv"));
      if (rotary) rope(qkv, positions);
      const { shape, dtype } = chooseAttention(x.device.gpu, core(rows), y.dtype, masks(saved)).keeps(
        core(rows),
        y.dtype,
      );
      const kept = saved.scratch(shape, dtype, "activations");
      const inside = { shape: [rows, inner], dtype: y.dtype };
      const context = between(saved, "context", inside, output.reads.input, "activations");
      attention(context, kept, qkv, core(rows), masks(saved));
      forward(output, y, context, saved.child("out", { unread: saved.unread }));
      saved.keep("qkv", qkv);
      saved.keep("context", context);
      saved.keep("kept", kept);
    },
    backwardInput(dx, dy, saved) {
      const rows = dy.shape[0];
      const dcontext = saved.scratch([rows, inner], dy.dtype);
      backwardInput(output, dcontext, dy, saved.child("out"));
      const inside = { shape: [rows, packed], dtype: dy.dtype };
      const dqkv = between(saved, "dqkv", inside, qkvProjection.reads.gradient, "derivatives");
      const [context, qkv, kept] = ["context", "qkv", "kept"].map((name) => saved.get(name));
      attentionBackward(dqkv, dcontext, context, qkv, kept, core(rows), masks(saved));
      saved.drop("context", "qkv", "kept");
      saved.release(dcontext);
      if (rotary) ropeBackward(dqkv, positions);
      backwardInput(qkvProjection, dx, dqkv, saved.child("qkv"));
    },
    withParts: (change) => attending(name, options, change(qkvProjection), change(output)),
  });
}
