/** Mamba's selective scan with its gate: forward, and its two backward halves. */
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { empty, release, sizeOf, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";
import { chunkedBackward, chunkedForward } from "./scan_chunks.ts";
import { rowVariant } from "./variants.ts";

/** Tokens between two kept states. */
const chunk = 16;

/**
 * Bytes of what dB and dC sum over the channels that lie in memory at once, or an eighth of them on a GPU: I takes so many
 * chunks in one dispatch, one at the least.
 */
export const mostPartialBytes = 4 * 2 ** 20;

/** The learned tensors of a scan of C channels with states of N numbers, a multiple of 4. */
export interface ScanParameters {
  /** [C, N] or flat; the decay rates are A = -exp(aLog). */
  readonly aLog: Tensor;
  /** [C], the part of x that passes beside the state. */
  readonly d: Tensor;
  /** [C], added to dtRaw. */
  readonly dtBias: Tensor;
}

/** What a scan reads besides its parameters; R rows are the tokens of R / length sequences. */
export interface ScanInputs {
  /** [R, C]. */
  readonly x: Tensor;
  /** [R, C], the step sizes before bias and softplus. */
  readonly dtRaw: Tensor;
  /** [R, 2N or more]: B and C are the last 2N columns; a row's length is a multiple of 4. */
  readonly projection: Tensor;
  /** [R, C or more]: the gate z is the last C columns. */
  readonly gate: Tensor;
}

/** Shape of the states that {@link selectiveScan} keeps: one at the start of each 16 tokens. */
export function scanStatesShape(rows: number, length: number, channels: number, state: number): readonly number[] {
  return [rows / length, Math.ceil(length / chunk), state, channels];
}

/** Shape of the sums that {@link selectiveScanBackwardInput} leaves for W, whose first axis is the sequences. */
export function scanSumsShape(rows: number, length: number, channels: number, state: number): readonly number[] {
  return [rows / length, channels * (state + 4)];
}

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
  const { x, dtRaw, projection, gate } = inputs;
  const problem = describe("selectiveScan", inputs, parameters, length, { out, states });
  const { device, kernels, sequences, channels, words } = problem;
  const constants = prepare(problem, parameters);
  const broadcast = broadcastKernels(problem);
  if (inChunks(problem)) chunkedForward(problem, out, states, { ...inputs, constants });
  else {
    device.dispatch(
      broadcast?.forward ?? kernels.forward,
      words,
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
  const { x, dtRaw, projection, gate } = inputs;
  const problem = describe("selectiveScanBackwardInput", inputs, parameters, length, { out: dout, states });
  const { device, kernels, sequences, channels, state, words } = problem;
  expectShape("selectiveScanBackwardInput", "dprojection", dprojection, projection.shape, "float");
  expectShape("selectiveScanBackwardInput", "sums", sums, [sequences, channels * (state + 4)]);
  const constants = prepare(problem, parameters);
  const broadcast = broadcastKernels(problem);
  // Channels in each of the sums that are gathered, or the groups of four lanes that have added theirs up.
  const parts = broadcast ? channels / 4 : channels;
  const parallel = inChunks(problem), { chunks } = problem;
  const most = (parallel ? 8 : 1) * mostPartialBytes;
  const span = Math.min(chunks, Math.max(1, Math.floor(most / (sequences * parts * chunk * 8 * state))));
  const partials = empty(device, [sequences, parts, span * chunk, 2 * state], "workspace");
  const shared = rowVariant(device, state) === "group" && state <= 128;
  const gather = (first: number, count: number) => {
    const tokens = sequences * (Math.min((first + count) * chunk, length) - first * chunk);
    const gatherWords = [sequences, length, parts, ...words.slice(3), first, count];
    const grid = lanes(tokens * (shared ? 64 : state / 2));
    device.dispatch(shared ? kernels.gatherGroup : kernels.gather, gatherWords, [dprojection, partials], grid);
  };
  if (parallel) {
    chunkedBackward(problem, dout, states, sums, partials, { ...inputs, constants }, span, gather);
  } else {
    for (let end = chunks; end > 0; end -= span) {
      const first = Math.max(0, end - span);
      device.dispatch(
        broadcast?.backward ?? kernels.backward,
        [...words, first, end - first],
        [dout, dtRaw, gate, states, partials, sums, x, projection, constants],
        lanes(sequences * channels, broadcast?.lanes),
      );
      gather(first, end - first);
    }
  }
  release(constants, partials);
}

/** W of {@link selectiveScan}: adds the sums that I left of any number of sequences to the gradients of the parameters. */
export function selectiveScanBackwardWeight(gradients: ScanParameters, sums: Tensor): void {
  const { aLog, d, dtBias } = gradients;
  const channels = sizeOf(d.shape), state = sizeOf(aLog.shape) / channels;
  expectShape("selectiveScanBackwardWeight", "dtBias", dtBias, [channels], "float");
  expectShape("selectiveScanBackwardWeight", "sums", sums, [rowsOf(sums), channels * (state + 4)]);
  const { backwardWeight } = scanKernels(state);
  const words = [rowsOf(sums), 0, channels, 0, 0, 0];
  sums.device.dispatch(backwardWeight, words, [aLog, d, dtBias, sums], lanes(channels * (state / 4 + 1)));
}

/** The kernels for states of `state` numbers. */
function scanKernels(state: number) {
  const constants = { VECTORS: state / 4, CHUNK: chunk };
  const make = () => ({
    prepare: kernel("scan", "prepare", constants),
    forward: kernel("scan", "forward", constants),
    backward: kernel("scan_backward", "backward", constants),
    gather: kernel("scan_backward", "gather", constants),
    gatherGroup: kernel("scan_backward", "gather_group", constants),
    backwardWeight: kernel("scan_backward", "backward_weight", constants),
  });
  let kernels = made.get(state);
  if (!kernels) made.set(state, kernels = make());
  return kernels;
}
const made = new Map<
  number,
  Record<"prepare" | "forward" | "backward" | "gather" | "gatherGroup" | "backwardWeight", Kernel>
>();

/** Whether all chunks go side by side: on a GPU, where there are several. */
function inChunks({ device, state, chunks }: ReturnType<typeof describe>): boolean {
  return rowVariant(device, state) === "group" && chunks > 1;
}

/** The kernels that share loads in subgroups of so many lanes, where they serve; see the head of their file. */
function broadcastKernels({ device, channels, state }: ReturnType<typeof describe>) {
  const { software, subgroupSize } = device.gpu.info;
  if (!software || ![4, 8, 16].includes(subgroupSize) || channels % subgroupSize !== 0 || state > 16) return undefined;
  if (rowVariant(device, state) !== "vec4") return undefined;
  const key = `${subgroupSize} ${state}`;
  let kernels = broadcasting.get(key);
  if (!kernels) {
    const constants = { LANES: subgroupSize, VECTORS: state / 4, CHUNK: chunk };
    kernels = {
      lanes: subgroupSize,
      forward: kernel("scan_subgroup", "forward", constants),
      backward: kernel("scan_subgroup", "backward", constants),
    };
    broadcasting.set(key, kernels);
  }
  return kernels;
}
const broadcasting = new Map<string, { lanes: number; forward: Kernel; backward: Kernel }>();

/** Sizes of a scan, checked. */
function describe(
  operation: string,
  { x, dtRaw, projection, gate }: ScanInputs,
  { aLog, d, dtBias }: ScanParameters,
  length: number,
  { out, states }: { out: Tensor; states: Tensor },
) {
  const rows = rowsOf(x), channels = widthOf(x);
  const state = sizeOf(aLog.shape) / channels;
  const columns = widthOf(projection), gateColumns = widthOf(gate);
  if (rows % length !== 0) {
    throw new Error(`${operation}: x [${x.shape}] is no number of sequences of ${length} tokens`);
  }
  if (state % 4 !== 0) {
    throw new Error(`${operation}: aLog [${aLog.shape}] is no multiple of 4 for ${channels} channels`);
  }
  if (rowsOf(projection) !== rows || columns < 2 * state || columns % 4 !== 0) {
    throw new Error(
      `${operation}: projection is [${projection.shape}] where [${rows},${2 * state}] or wider, by fours, is needed`,
    );
  }
  if (rowsOf(gate) !== rows || gateColumns < channels) {
    throw new Error(`${operation}: gate is [${gate.shape}] where [${rows},${channels}] or wider is needed`);
  }
  expectShape(operation, "out", out, x.shape, "float");
  expectShape(operation, "dtRaw", dtRaw, x.shape, "float");
  expectShape(operation, "states", states, scanStatesShape(rows, length, channels, state));
  expectShape(operation, "d", d, [channels], "float");
  expectShape(operation, "dtBias", dtBias, [channels], "float");
  const sequences = rows / length;
  return {
    device: x.device,
    kernels: scanKernels(state),
    sequences,
    channels,
    state,
    chunk,
    chunks: Math.ceil(length / chunk),
    words: [sequences, length, channels, columns / 4, gateColumns],
  };
}

/** What depends on the channel alone, as the kernels read it; to be released. */
function prepare(
  { device, kernels, channels, state, words }: ReturnType<typeof describe>,
  { aLog, d, dtBias }: ScanParameters,
): Tensor {
  const constants = empty(device, [channels, state + 4], "workspace");
  device.dispatch(kernels.prepare, words, [constants, aLog, d, dtBias], lanes(channels));
  return constants;
}
