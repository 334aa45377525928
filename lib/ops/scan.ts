/** Mamba's selective scan with its gate: forward, and its two backward halves. */
import { empty, release, sizeOf, type Tensor, writeArray } from "../tensor.ts";
import { defineOperation, type OperationSpec, roughly } from "./choice.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { chunkedBackward, chunkedForward, chunkedSums } from "./scan_chunks.ts";
import {
  broadcastKernels,
  check,
  checkInputs,
  chunk,
  describe,
  prepare,
  type ScanInputs,
  scanKernels,
  type ScanParameters,
  type ScanProblem,
  scanSumsShape,
  servesSubgroup,
} from "./scan_problem.ts";
import { usual } from "./usual.ts";
import { singleOperation } from "./variants.ts";

export { type ScanInputs, type ScanParameters, scanStatesShape, scanSumsShape } from "./scan_problem.ts";

/**
 * Bytes of what dB and dC sum over the channels that lie in memory at once, or an eighth of them on a GPU: I takes so many
 * chunks in one dispatch, one at the least.
 */
export const mostPartialBytes = 4 * 2 ** 20;

/**
 * `out = y * silu(z)` with `h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t]`, `y[t] = C[t] . h[t] + D x[t]` and
 * `dt = softplus(dtRaw + dtBias)` for each channel and sequence (Gu, Dao, "Mamba", 2023, algorithm 2). out: [R, C];
 * states: {@link scanStatesShape}, kept for the backward.
 */
export function selectiveScan(
  out: Tensor,
  states: Tensor,
  inputs: ScanInputs,
  parameters: ScanParameters,
  length: number,
): void {
  check("selectiveScan", inputs, parameters, length, { out, states });
  forwardOperation.run({ out, states, inputs, parameters, length });
}

/**
 * `plain`: an invocation a channel; `subgroup`: the same, with loads shared in a subgroup, for processors; `chunks`: all chunks
 * at once, for GPUs, where there are several.
 */
type Way = "plain" | "subgroup" | "chunks";
const ways: readonly Way[] = ["plain", "subgroup", "chunks"];

/** What all scans have in common. */
function scanning<P extends ScanProblem>(
  name: string,
  record: (way: Way, problem: P) => void,
  { kind, ...spec }: Pick<OperationSpec<P>, "outputs" | "prepare"> & {
    /** What else decides which way is fastest, behind the sizes. */
    readonly kind?: (problem: P) => string;
  },
) {
  return defineOperation<P>({
    ...spec,
    name,
    candidates: ways.map((way) => ({
      name: way,
      supports: (info, problem) => way !== "subgroup" || servesSubgroup(info, problem),
      record: (problem) => record(way, problem),
    })),
    classOf(problem) {
      const { inputs: { x }, parameters: { aLog }, length } = problem, channels = widthOf(x);
      const sizes = `${roughly(rowsOf(x) / length, length, channels)} states ${sizeOf(aLog.shape) / channels}`;
      return `${sizes} ${x.dtype}${kind?.(problem) ?? ""}`;
    },
    rule: ({ kind }) => usual[kind].scan,
  });
}

interface ForwardProblem extends ScanProblem {
  readonly out: Tensor;
  readonly states: Tensor;
}

const forwardOperation = scanning<ForwardProblem>("selectiveScan", recordForward, {
  outputs: ({ out, states }) => [out, states],
});

function recordForward(way: Way, { out, states, inputs, parameters, length }: ForwardProblem) {
  const { x, dtRaw, projection, gate } = inputs;
  const problem = describe(inputs, parameters, length);
  const { device, kernels, sequences, channels, chunks, parameters: sizes } = problem;
  const constants = prepare(problem, parameters);
  const broadcast = way === "subgroup" ? broadcastKernels(problem) : undefined;
  if (way === "chunks" && chunks > 1) chunkedForward(problem, out, states, { ...inputs, constants });
  else {
    device.dispatch(
      broadcast?.forward ?? kernels.forward,
      broadcast ? { ...sizes, chunk: 0, span: chunks } : sizes,
      [out, states, x, dtRaw, projection, gate, constants],
      lanes(sequences * channels, broadcast?.lanes),
    );
  }
  release(constants);
}

/**
 * {@link selectiveScan} of the next R tokens of one sequence, without what a backward reads. states: f32 [N / 4, C, 4], after the `before` tokens
 * before them, which it reads unless there are none and leaves for the next; before: u32 [1].
 */
export function selectiveScanOn(
  out: Tensor,
  states: Tensor,
  inputs: ScanInputs,
  parameters: ScanParameters,
  before: Tensor,
): void {
  const name = "selectiveScanOn", channels = widthOf(inputs.x), rows = rowsOf(inputs.x);
  checkInputs(name, inputs, parameters, rows);
  expectShape(name, "out", out, inputs.x.shape, "float");
  expectShape(name, "states", states, [sizeOf(parameters.aLog.shape) / channels / 4, channels, 4]);
  expectShape(name, "before", before, [1], "u32");
  onOperation.run([out, states, inputs.x, inputs, parameters, before]);
}

const onOperation = singleOperation<
  [out: Tensor, states: Tensor, x: Tensor, inputs: ScanInputs, parameters: ScanParameters, before: Tensor]
>({
  name: "selectiveScanOn",
  kernel: "scan:forward_on",
  outputs: 2,
  record(out, states, _x, inputs, parameters, before) {
    const { x, dtRaw, projection, gate } = inputs;
    const problem = describe(inputs, parameters, rowsOf(x));
    const { device, kernels, channels, parameters: sizes } = problem;
    const constants = prepare(problem, parameters);
    device.dispatch(
      kernels.forwardOn,
      sizes,
      [out, states, x, dtRaw, projection, gate, constants, before],
      lanes(channels),
    );
    release(constants);
  },
  prepare: ([, , , , , before]) => writeArray(before, Uint32Array.of(1)),
});

/** What I of a scan leaves for W: the sums of each sequence, or what {@link selectiveScanSums} makes them from. */
export type ScanLeft =
  | {
    /** Of {@link scanSumsShape}: all that W needs of the scan. */
    readonly sums: Tensor;
  }
  | {
    /** [R, 2C]: the gradients with respect to dtRaw and, behind them, to y before the gate. */
    readonly dscan: Tensor;
  };

/**
 * I of {@link selectiveScan}, in place: from `dout`, the gradient with respect to out, makes dout into dx and z into its
 * gradient, and writes the last 2N columns of `dprojection`, dB and dC. What W needs it leaves in one of two ways. With `sums` it adds
 * up all that W needs in the same loop, 3 to 5 % of its time on lavapipe, and makes dtRaw into its gradient. With `dscan` it
 * writes that gradient and y's there and leaves dtRaw as it is, for W to make the sums with {@link selectiveScanSums}. The
 * states are recomputed chunk by chunk from those kept, and `states` is used up.
 */
export function selectiveScanBackwardInput(
  dout: Tensor,
  dprojection: Tensor,
  left: ScanLeft,
  states: Tensor,
  inputs: ScanInputs,
  parameters: ScanParameters,
  length: number,
): void {
  const name = "selectiveScanBackwardInput";
  check(name, inputs, parameters, length, { out: dout, states });
  const channels = widthOf(inputs.x), rows = rowsOf(inputs.x), state = sizeOf(parameters.aLog.shape) / channels;
  expectShape(name, "dprojection", dprojection, inputs.projection.shape, "float");
  if ("sums" in left) expectShape(name, "sums", left.sums, scanSumsShape(rows, length, channels, state));
  else expectShape(name, "dscan", left.dscan, [rows, 2 * channels], "float");
  backwardOperation.run({ dout, dprojection, left, states, inputs, parameters, length });
}

interface BackwardProblem extends ScanProblem {
  readonly dout: Tensor;
  readonly dprojection: Tensor;
  readonly left: ScanLeft;
  readonly states: Tensor;
}

const backwardOperation = scanning<BackwardProblem>("selectiveScanBackwardInput", recordBackward, {
  outputs: ({ dout, dprojection, left, inputs: { dtRaw, gate } }) =>
    "sums" in left ? [dout, dprojection, left.sums, dtRaw, gate] : [dout, dprojection, left.dscan, gate],
  prepare: ({ states }) => writeArray(states, new Float32Array(sizeOf(states.shape)).fill(0.1)), // used up, each way its own
  kind: ({ left }) => "sums" in left ? "" : " sums in W",
});

function recordBackward(
  way: Way,
  { dout, dprojection, left, states, inputs, parameters, length }: BackwardProblem,
) {
  const { x, dtRaw, projection, gate } = inputs;
  const problem = describe(inputs, parameters, length);
  const { device, kernels, sequences, channels, state, parameters: sizes } = problem;
  const constants = prepare(problem, parameters);
  const broadcast = way === "subgroup" ? broadcastKernels(problem) : undefined;
  // Channels in each of the sums that are gathered, or the groups of four lanes that have added theirs up.
  const parts = broadcast ? channels / 4 : channels;
  const { chunks } = problem, parallel = way === "chunks" && chunks > 1;
  const most = (parallel ? 8 : 1) * mostPartialBytes;
  const span = Math.min(chunks, Math.max(1, Math.floor(most / (sequences * parts * chunk * 8 * state))));
  const partials = empty(device, [sequences, parts, span * chunk, 2 * state], "workspace");
  const shared = way === "chunks" && state <= 128;
  const gather = (first: number, count: number) => {
    const tokens = sequences * (Math.min((first + count) * chunk, length) - first * chunk);
    const gathered = { ...sizes, channels: parts, chunk: first, span: count };
    const grid = lanes(tokens * (shared ? 64 : state / 2));
    device.dispatch(shared ? kernels.gatherGroup : kernels.gather, gathered, [dprojection, partials], grid);
  };
  if (parallel) {
    chunkedBackward(problem, dout, states, left, partials, { ...inputs, constants }, span, gather);
  } else {
    const { backward, backwardLeft } = broadcast ?? kernels;
    const [kernel, written] = "sums" in left ? [backward, left.sums] as const : [backwardLeft, left.dscan] as const;
    for (let end = chunks; end > 0; end -= span) {
      const first = Math.max(0, end - span);
      device.dispatch(
        kernel,
        { ...sizes, chunk: first, span: end - first },
        [dout, dtRaw, gate, states, partials, written, x, projection, constants],
        lanes(sequences * channels, broadcast?.lanes),
      );
      gather(first, end - first);
    }
  }
  release(constants, partials);
}

/** What the sums of a scan are made from, of any number of sequences. */
export interface ScanLeftInputs extends Omit<ScanInputs, "gate"> {
  /** [R, 2C], as {@link selectiveScanBackwardInput} leaves it. */
  readonly dscan: Tensor;
}

/**
 * The sums over each sequence that {@link selectiveScanBackwardInput} makes with `sums`, from what it leaves with `dscan`. A is
 * diagonal, so that its gradient goes along with a forward scan; nothing runs from the end again, and no states are needed.
 */
export function selectiveScanSums(
  sums: Tensor,
  { x, dtRaw, projection, dscan }: ScanLeftInputs,
  parameters: ScanParameters,
  length: number,
): void {
  const name = "selectiveScanSums", rows = rowsOf(x), channels = widthOf(x);
  const inputs = { x, dtRaw, projection, gate: dscan }; // y's gradient lies in dscan where z does in the gate
  checkInputs(name, inputs, parameters, length);
  expectShape(name, "dscan", dscan, [rows, 2 * channels], "float");
  expectShape(name, "sums", sums, scanSumsShape(rows, length, channels, sizeOf(parameters.aLog.shape) / channels));
  sumsOperation.run({ sums, inputs, parameters, length });
}

const sumsOperation = scanning<ScanProblem & { readonly sums: Tensor }>("selectiveScanSums", recordSums, {
  outputs: ({ sums }) => [sums],
});

function recordSums(way: Way, { sums, inputs, parameters, length }: ScanProblem & { readonly sums: Tensor }) {
  const { x, dtRaw, projection, gate: dscan } = inputs;
  const problem = describe(inputs, parameters, length);
  const { device, kernels, sequences, channels, chunks, parameters: sizes } = problem;
  const constants = prepare(problem, parameters);
  const broadcast = way === "subgroup" ? broadcastKernels(problem) : undefined;
  if (way === "chunks" && chunks > 1) chunkedSums(problem, sums, { x, dtRaw, projection, constants, dscan });
  else {
    device.dispatch(
      (broadcast ?? kernels).sums,
      { ...sizes, chunk: 0, span: 0 },
      [sums, dscan, x, dtRaw, projection, constants],
      lanes(sequences * channels, broadcast?.lanes),
    );
  }
  release(constants);
}

/** W of {@link selectiveScan}: adds the sums of any number of sequences to the gradients of the parameters. */
export function selectiveScanBackwardWeight({ aLog, d, dtBias }: ScanParameters, sums: Tensor): void {
  const channels = sizeOf(d.shape), state = sizeOf(aLog.shape) / channels;
  expectShape("selectiveScanBackwardWeight", "dtBias", dtBias, [channels], "float");
  expectShape("selectiveScanBackwardWeight", "sums", sums, [rowsOf(sums), channels * (state + 4)]);
  weightOperation.run([aLog, d, dtBias, sums]);
}

const weightOperation = singleOperation<[aLog: Tensor, d: Tensor, dtBias: Tensor, sums: Tensor]>({
  name: "selectiveScanBackwardWeight",
  kernel: "scan_backward:backward_weight",
  outputs: 3,
  record(aLog, d, dtBias, sums) {
    const channels = sizeOf(d.shape), state = sizeOf(aLog.shape) / channels;
    const unread = { length: 0, projectionStride: 0, gateStride: 0, chunk: 0, span: 0 };
    sums.device.dispatch(
      scanKernels(state).backwardWeight,
      { sequences: rowsOf(sums), channels, ...unread },
      [aLog, d, dtBias, sums],
      lanes(channels * (state / 4 + 1)),
    );
  },
});
