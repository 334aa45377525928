/**
 * The inside of a Mamba block (Gu and Dao, arXiv 2312.00752, figure 3): [x | z] = in_proj(input), x = silu(conv1d(x)),
 * [dt | B | C] = x_proj(x), y = out_proj(scan(x, dt_proj(dt), B, C) * silu(z)).
 */
import { UserError } from "../errors.ts";
import {
  causalConv,
  causalConvBackwardInput,
  causalConvBackwardWeight,
  causalConvOn,
  convTaps,
} from "../ops/causal_conv.ts";
import { matmulBatched, type Matrices } from "../ops/matmul.ts";
import {
  type ScanInputs,
  scanStatesShape,
  scanSumsShape,
  selectiveScan,
  selectiveScanBackwardInput,
  selectiveScanBackwardWeight,
  selectiveScanOn,
  selectiveScanSums,
} from "../ops/scan.ts";
import { joinAdjacent, type Tensor } from "../tensor.ts";
import { between, composed } from "./composite.ts";
import { frozenPart } from "./frozen.ts";
import { expectInput, type Layer } from "./layer.ts";
import { linear } from "./linear.ts";
import { butFrozen, type Initial, isTrained, type Parameter, parameter, type Trainable } from "./parameter.ts";
import { type Past, piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";
import type { Saved } from "./saved.ts";
import type { Reading } from "./sums.ts";

/** Shape of a Mamba mixer. */
export interface MambaOptions {
  /** Features of x and y. */
  readonly width: number;
  /** Channels of the scan for each feature of the residual stream. */
  readonly expand: number;
  /** Numbers in the state of a channel, a multiple of 4. */
  readonly state: number;
  /** Rank of the step sizes' projection. */
  readonly rank: number;
  /** Tokens in a sequence: a micro-batch of R rows holds R / length sequences. */
  readonly length: number;
  /** Bound of the uniform distribution that the output projection starts with. */
  readonly outputBound: number;
  /** Which parameters are trained; all by default. */
  readonly trainable?: Trainable;
}

/**
 * A Mamba mixer with the reference implementation's initial values. The gate is part of the scan's kernels. I works in place
 * where it can: the slot of [x | z] becomes that of its gradient. W needs the inputs and output gradients of the four projections, and
 * for the convolution and the scan sums over each sequence; the scan's states and the gate are gone after I.
 *
 * The convolution's sums always fall out of I's loop, a few multiplications beside its loads: to make them W would repeat
 * nearly all of that loop, and x and dy would wait for it. The scan's (`Saved.sums`) can be made by either. In I's loop they are a
 * twelfth of the arithmetic, and the slot of the step sizes becomes that of their gradient. W's is a forward scan with half the
 * arithmetic of I's loop, and the step sizes wait for it with their gradient and y's.
 *
 * @throws {UserError} When the state is no multiple of 4.
 */
export function mambaMixer(name: string, options: MambaOptions): Layer {
  const { width, expand, state, outputBound, trainable = true } = options;
  if (state % 4 !== 0) throw new UserError(`${name}: state ${state} must be a multiple of 4`);
  const inner = expand * width;
  return mixing(
    name,
    options,
    linear(`${name}.in_proj`, width, 2 * inner, { initial: { uniform: width ** -0.5 }, trainable }),
    linear(`${name}.out_proj`, inner, width, { initial: { uniform: outputBound }, trainable }),
  );
}

/** Of these projections, or what stands for them. */
function mixing(name: string, options: MambaOptions, inProjection: Layer, output: Layer): Layer {
  const { width, expand, state, rank, length, trainable = true } = options;
  const inner = expand * width, columns = rank + 2 * state;
  // The scan reads B and C by fours: a row [dt | B | C] ends where a multiple of 4 does, and may start a little late.
  const stride = Math.ceil(columns / 4) * 4;
  const described = (part: string, shape: readonly number[], initial: Initial) =>
    parameter(`${name}.${part}`, shape, initial, trainable);
  const convWeight = described("conv1d.weight", [inner, convTaps], { uniform: convTaps ** -0.5 });
  const convBias = described("conv1d.bias", [inner], { uniform: convTaps ** -0.5 });
  const xWeight = described("x_proj.weight", [inner, columns], { uniform: inner ** -0.5 });
  const dtWeight = described("dt_proj.weight", [rank, inner], { uniform: rank ** -0.5 });
  const dtBias = described("dt_proj.bias", [inner], logUniformStep);
  // [inner, state] as one axis: weight decay is for matrices, and the reference keeps it off A and D.
  const aLog = described("A_log", [inner * state], (index) => Math.log(1 + index % state));
  const d = described("D", [inner], "ones");
  const trainsX = isTrained(xWeight), trainsDt = isTrained(dtWeight);
  // The sums of each of the two come out of one kernel.
  const trainsConv = [convWeight, convBias].some(isTrained), trainsScan = [aLog, d, dtBias].some(isTrained);
  /** Whether I makes the scan's sums, also where none of them is read. */
  const sumsInI = ({ sums }: Saved) => sums === "i" || !trainsScan;

  const part = (projection: Tensor, count: number): Matrices => ({
    ...matrix(projection),
    columns: count,
    offset: stride - columns,
  });
  const everything = (projection: Tensor) => part(projection, columns);
  const steps = (projection: Tensor) => part(projection, rank);
  const convolution = ({ value }: Saved) => [value(convWeight), value(convBias)] as const;
  const scanParameters = ({ value }: Saved) => ({ aLog: value(aLog), d: value(d), dtBias: value(dtBias) });
  const scanInputs = (saved: Saved): ScanInputs => ({
    x: saved.get("convolved"),
    dtRaw: saved.get("dt"),
    projection: saved.get("projection"),
    gate: saved.get("xz"),
  });

  /** The next rows of one sequence, from the convolution's last inputs and the scan's state, which they move on. */
  function forwardPiece(y: Tensor, x: Tensor, saved: Saved, { before, fixed }: Past) {
    const memory = (columns: number) => saved.scratch([x.shape[0], columns], y.dtype, "activations");
    const xz = memory(2 * inner), convolved = memory(inner), projection = memory(stride), dtRaw = memory(inner);
    forward(inProjection, xz, x, saved.child("in_proj"));
    causalConvOn(convolved, fixed("last", [inner, convTaps], "f32"), xz, ...convolution(saved), before);
    matmulBatched(everything(projection), matrix(convolved), matrix(saved.value(xWeight)), [1, 1]);
    matmulBatched(matrix(dtRaw), steps(projection), matrix(saved.value(dtWeight)), [1, 1]);
    const gated = memory(inner), inputs = { x: convolved, dtRaw, projection, gate: xz };
    selectiveScanOn(gated, fixed("states", [state / 4, inner, 4], "f32"), inputs, scanParameters(saved), before);
    forward(output, y, gated, saved.child("out_proj", { unread: saved.unread }));
  }

  return composed({ in_proj: inProjection, out_proj: output }, {
    ...piecesOf(inProjection, output, { pieces: "past" }),
    parameters: [convWeight, convBias, xWeight, dtWeight, dtBias, aLog, d],
    reads: { input: inProjection.reads.input, gradient: output.reads.gradient },
    outputShape(shape) {
      expectInput(name, shape, ["rows", width]);
      return shape;
    },
    flops([rows]) {
      const a = inProjection.flops([rows, width]), b = output.flops([rows, inner]);
      const low = 2 * rows * inner * (columns + rank);
      const products = 2 * rows * inner * (Number(trainsX) * columns + Number(trainsDt) * rank);
      // Counted in the kernels, an exponential as one: of the scan for each number of a state, of the rest for each channel.
      const scan = rows * inner * state, channel = rows * inner;
      const added = rows / length * inner * (Number(trainsScan) * (state + 2) + Number(trainsConv) * (convTaps + 1));
      return {
        f: a.f + b.f + low + 7 * scan + 35 * channel,
        recompute: a.f + low + 7 * scan + 35 * channel,
        i: a.i + b.i + low + 24 * scan + 90 * channel,
        w: a.w + b.w + products + added,
        ...trainsScan ? { sums: { i: 2 * scan + 3 * channel, w: 11 * scan + 30 * channel } } : {},
      };
    },
    forward(y, x, saved) {
      if (saved.past) return forwardPiece(y, x, saved, saved.past);
      const rows = x.shape[0];
      const memory = (key: string, columns: number, isRead: Reading) =>
        between(saved, key, { shape: [rows, columns], dtype: y.dtype }, isRead, "activations");
      const xz = memory("xz", 2 * inner, inProjection.reads.gradient); // which its gradient takes over
      forward(inProjection, xz, x, saved.child("in_proj"));
      const convolved = memory("convolved", inner, trainsX || trainsScan && "sums");
      causalConv(convolved, xz, ...convolution(saved), length);
      const projection = memory("projection", stride, trainsDt || trainsScan && "sums");
      matmulBatched(everything(projection), matrix(convolved), matrix(saved.value(xWeight)), [1, 1]);
      const dt = memory("dt", inner, sumsInI(saved) ? trainsDt : true);
      matmulBatched(matrix(dt), steps(projection), matrix(saved.value(dtWeight)), [1, 1]);
      const states = saved.scratch(scanStatesShape(rows, length, inner, state), "f32", "activations");
      for (const [key, tensor] of Object.entries({ xz, convolved, projection, dt, states })) saved.keep(key, tensor);
      const gated = memory("gated", inner, output.reads.input);
      selectiveScan(gated, states, scanInputs(saved), scanParameters(saved), length);
      forward(output, y, gated, saved.child("out_proj", { unread: saved.unread }));
    },
    backwardInput(dx, dy, saved) {
      const rows = dy.shape[0], sequences = rows / length;
      const dconvolved = saved.scratch([rows, inner], dy.dtype);
      backwardInput(output, dconvolved, dy, saved.child("out_proj"));
      const memory = (key: string, shape: readonly number[], isKept: boolean, dtype: Tensor["dtype"] = "f32") => {
        const tensor = between(saved, key, { shape, dtype }, isKept, "derivatives");
        if (isKept) saved.keep(key, tensor);
        return tensor;
      };
      const dprojection = memory("dprojection", [rows, stride], trainsX, dy.dtype);
      const inI = sumsInI(saved);
      const left = inI
        ? memory("scan_sums", scanSumsShape(rows, length, inner, state), trainsScan)
        : memory("dscan", [rows, 2 * inner], true, dy.dtype);
      selectiveScanBackwardInput(
        ...[dconvolved, dprojection, inI ? { sums: left } : { dscan: left }, saved.get("states")] as const,
        ...[scanInputs(saved), scanParameters(saved), length] as const,
      );
      saved.drop("states");
      // Slots that hold gradients from here on.
      for (const name of inI ? ["dt", "xz"] : ["xz"]) {
        dy.device.pool.recategorize(saved.get(name).storage, "derivatives");
      }
      const ddt = firstColumns(inI ? saved.get("dt") : left, inner), transposeB = true;
      matmulBatched(steps(dprojection), ddt, matrix(saved.value(dtWeight)), [1, 1], { transposeB });
      matmulBatched(matrix(dconvolved), everything(dprojection), matrix(saved.value(xWeight)), [1, 1], {
        transposeB,
        accumulate: true,
      });
      const weightSums = memory("conv_weight_sums", [sequences, inner * convTaps], trainsConv);
      const biasSums = memory("conv_bias_sums", [sequences, inner], trainsConv);
      const dxz = saved.get("xz");
      causalConvBackwardInput(dxz, weightSums, biasSums, dconvolved, ...convolution(saved), length);
      backwardInput(inProjection, dx, dxz, saved.child("in_proj"));
      const unread = [...trainsX ? [] : ["convolved"], ...trainsDt ? [] : ["projection"]];
      if (inI) saved.drop("xz", ...unread, ...trainsDt ? [] : ["dt"]);
      else saved.drop("xz"); // W's scan reads all of them
    },
    backwardWeight(saved) {
      const kept = (...names: string[]) => joinAdjacent(saved.map((each) => names.map((name) => each.get(name))));
      const [first] = saved, { gradient, scratch } = first, inI = sumsInI(first);
      /** Where one kernel adds to several gradients, that of a frozen one goes nowhere. */
      const gradientOf = (each: Parameter) => isTrained(each) ? gradient(each) : scratch(each.shape);
      const product = { transposeA: true, accumulate: true, sampleRows: length };
      if (trainsX) {
        for (const [x, dprojection] of kept("convolved", "dprojection")) {
          matmulBatched(matrix(gradient(xWeight)), matrix(x), everything(dprojection), [1, 1], product);
        }
      }
      if (trainsDt) {
        for (const [projection, holder] of kept("projection", inI ? "dt" : "dscan")) {
          matmulBatched(matrix(gradient(dtWeight)), steps(projection), firstColumns(holder, inner), [1, 1], product);
        }
      }
      if (trainsConv) {
        const [weight, bias] = [convWeight, convBias].map(gradientOf);
        for (const [weights, biases] of kept("conv_weight_sums", "conv_bias_sums")) {
          causalConvBackwardWeight(weight, bias, weights, biases);
        }
      }
      if (!trainsScan) return;
      const gradients = { aLog: gradientOf(aLog), d: gradientOf(d), dtBias: gradientOf(dtBias) };
      if (inI) {
        for (const [sums] of kept("scan_sums")) selectiveScanBackwardWeight(gradients, sums);
        return;
      }
      for (const [x, dtRaw, projection, dscan] of kept("convolved", "dt", "projection", "dscan")) {
        const sums = scratch(scanSumsShape(x.shape[0], length, inner, state));
        selectiveScanSums(sums, { x, dtRaw, projection, dscan }, scanParameters(first), length);
        selectiveScanBackwardWeight(gradients, sums);
        first.release(sums);
      }
    },
    freeze(isFrozen) {
      const own = { ...options, trainable: butFrozen(trainable, isFrozen) };
      return mixing(name, own, frozenPart(inProjection, isFrozen), frozenPart(output, isFrozen));
    },
    withParts: (change) => mixing(name, options, change(inProjection), change(output)),
  });
}

/** What softplus makes into a step size between 0.001 and 0.1, log-uniform. */
const logUniformStep: Initial = (_, random) => {
  const step = Math.exp(Math.log(0.001) + random.uniform() * Math.log(100));
  return step + Math.log(-Math.expm1(-step));
};

function matrix(tensor: Tensor): Matrices {
  return firstColumns(tensor, tensor.shape[1]);
}

function firstColumns(tensor: Tensor, columns: number): Matrices {
  const [rows, rowStride] = tensor.shape;
  return { tensor, rows, columns, rowStride, offset: 0, strides: [0, 0] };
}
