/** Mamba's selective scan with its gate: forward, and its two backward halves. */
import { empty, release, sizeOf, type Tensor, writeArray } from "../tensor.ts";
import { defineOperation, type OperationSpec, roughly } from "./choice.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { chunkedBackward, chunkedForward } from "./scan_chunks.ts";
import {
  broadcastKernels,
  check,
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

/** What forward and backward have in common. */
function scanning<P extends ScanProblem>(
  name: string,
  record: (way: Way, problem: P) => void,
  spec: Pick<OperationSpec<P>, "outputs" | "prepare">,
) {
  return defineOperation<P>({
    ...spec,
    name,
    candidates: ways.map((way) => ({
      name: way,
      supports: (info, problem) => way !== "subgroup" || servesSubgroup(info, problem),
      record: (problem) => record(way, problem),
    })),
    classOf({ inputs: { x }, parameters: { aLog }, length }) {
      const channels = widthOf(x);
      return `${roughly(rowsOf(x) / length, length, channels)} states ${sizeOf(aLog.shape) / channels} ${x.dtype}`;
    },
    rule: ({ software }) => software ? "subgroup" : "chunks",
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
 * I of {@link selectiveScan}, in place: from `dout`, the gradient with respect to out, makes dout into dx, dtRaw into
 * its gradient and z into its; writes the last 2N columns of `dprojection`, dB and dC; and leaves in `sums`
 * ({@link scanSumsShape}) the sums over each sequence that are all that W needs. They fall out of the same loop, 3 to 5 % of
 * its time on lavapipe; for W to make them, it would have to run the rest of the loop again and keep all that I reads. The states are recomputed chunk by
 * chunk from those kept, and `states` is used up.
 */
export function selectiveScanBackwardInput(
  dout: Tensor,
  dprojection: Tensor,
  sums: Tensor,
  states: Tensor,
  inputs: ScanInputs,
  parameters: ScanParameters,
  length: number,
): void {
  const name = "selectiveScanBackwardInput";
  check(name, inputs, parameters, length, { out: dout, states });
  const channels = widthOf(inputs.x), rows = rowsOf(inputs.x), state = sizeOf(parameters.aLog.shape) / channels;
  expectShape(name, "dprojection", dprojection, inputs.projection.shape, "float");
  expectShape(name, "sums", sums, scanSumsShape(rows, length, channels, state));
  backwardOperation.run({ dout, dprojection, sums, states, inputs, parameters, length });
}

interface BackwardProblem extends ScanProblem {
  readonly dout: Tensor;
  readonly dprojection: Tensor;
  readonly sums: Tensor;
  readonly states: Tensor;
}

const backwardOperation = scanning<BackwardProblem>("selectiveScanBackwardInput", recordBackward, {
  outputs: ({ dout, dprojection, sums, inputs: { dtRaw, gate } }) => [dout, dprojection, sums, dtRaw, gate],
  prepare: ({ states }) => writeArray(states, new Float32Array(sizeOf(states.shape)).fill(0.1)), // used up, each way its own
});

function recordBackward(
  way: Way,
  { dout, dprojection, sums, states, inputs, parameters, length }: BackwardProblem,
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
    chunkedBackward(problem, dout, states, sums, partials, { ...inputs, constants }, span, gather);
  } else {
    for (let end = chunks; end > 0; end -= span) {
      const first = Math.max(0, end - span);
      device.dispatch(
        broadcast?.backward ?? kernels.backward,
        { ...sizes, chunk: first, span: end - first },
        [dout, dtRaw, gate, states, partials, sums, x, projection, constants],
        lanes(sequences * channels, broadcast?.lanes),
      );
      gather(first, end - first);
    }
  }
  release(constants, partials);
}

/** W of {@link selectiveScan}: adds the sums that I left of any number of sequences to the gradients of the parameters. */
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
