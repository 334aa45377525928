/** What all ways to run a selective scan have in common: what it is given, its sizes, and its kernels. */
import { UserError } from "../errors.ts";
import type { GpuInfo } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import { empty, sizeOf, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";
import { expectShape, rowsOf, widthOf } from "./shapes.ts";

/** Tokens between two kept states. */
export const chunk = 16;

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

/** A checked scan. */
export interface ScanProblem {
  readonly inputs: ScanInputs;
  readonly parameters: ScanParameters;
  readonly length: number;
}

/** The kernels for states of `state` numbers. */
export function scanKernels(state: number) {
  const constants = { VECTORS: state / 4, CHUNK: chunk };
  const make = () => ({
    prepare: kernel("scan", "prepare", constants),
    forward: kernel("scan", "forward", constants),
    forwardOn: kernel("scan", "forward_on", constants),
    backward: kernel("scan_backward", "backward", constants),
    backwardLeft: kernel("scan_backward", "backward_left", constants),
    gather: kernel("scan_backward", "gather", constants),
    gatherGroup: kernel("scan_backward", "gather_group", constants),
    backwardWeight: kernel("scan_backward", "backward_weight", constants),
    sums: kernel("scan_sums", "sums_of", { VECTORS: state / 4 }),
  });
  let kernels = made.get(state);
  if (!kernels) made.set(state, kernels = make());
  return kernels;
}
const made = new Map<
  number,
  Record<
    | "prepare"
    | "forward"
    | "forwardOn"
    | "backward"
    | "backwardLeft"
    | "gather"
    | "gatherGroup"
    | "backwardWeight"
    | "sums",
    Kernel
  >
>();

/** Whether the kernels that share loads in subgroups serve; see the head of their file. */
export function servesSubgroup(
  { subgroupSize }: GpuInfo,
  { inputs: { x }, parameters: { aLog } }: ScanProblem,
): boolean {
  const channels = widthOf(x);
  return [4, 8, 16].includes(subgroupSize) && channels % subgroupSize === 0 && sizeOf(aLog.shape) / channels <= 16;
}

/** These kernels. */
export function broadcastKernels({ device, state }: ReturnType<typeof describe>) {
  const { subgroupSize } = device.gpu.info;
  const key = `${subgroupSize} ${state}`;
  let kernels = broadcasting.get(key);
  if (!kernels) {
    const constants = { LANES: subgroupSize, VECTORS: state / 4, CHUNK: chunk };
    kernels = {
      lanes: subgroupSize,
      forward: kernel("scan_subgroup", "forward", constants),
      backward: kernel("scan_subgroup", "backward", constants),
      backwardLeft: kernel("scan_subgroup", "backward_left", constants),
      sums: kernel("scan_subgroup", "sums_of", constants),
    };
    broadcasting.set(key, kernels);
  }
  return kernels;
}
const broadcasting = new Map<
  string,
  { lanes: number } & Record<"forward" | "backward" | "backwardLeft" | "sums", Kernel>
>();

/** Throws where the shapes do not fit. */
export function check(
  operation: string,
  inputs: ScanInputs,
  parameters: ScanParameters,
  length: number,
  { out, states }: { out: Tensor; states: Tensor },
) {
  checkInputs(operation, inputs, parameters, length);
  const { shape } = inputs.x, channels = widthOf(inputs.x);
  expectShape(operation, "out", out, shape, "float");
  const kept = scanStatesShape(rowsOf(inputs.x), length, channels, sizeOf(parameters.aLog.shape) / channels);
  expectShape(operation, "states", states, kept);
}

/** Throws where the shapes of what a scan reads do not fit each other. */
export function checkInputs(
  operation: string,
  { x, dtRaw, projection, gate }: ScanInputs,
  { aLog, d, dtBias }: ScanParameters,
  length: number,
) {
  const rows = rowsOf(x), channels = widthOf(x);
  const state = sizeOf(aLog.shape) / channels;
  const columns = widthOf(projection), gateColumns = widthOf(gate);
  if (rows % length !== 0) {
    throw new UserError(`${operation}: x [${x.shape}] is no number of sequences of ${length} tokens`);
  }
  if (state % 4 !== 0) {
    throw new UserError(`${operation}: aLog [${aLog.shape}] is no multiple of 4 for ${channels} channels`);
  }
  if (rowsOf(projection) !== rows || columns < 2 * state || columns % 4 !== 0) {
    throw new UserError(
      `${operation}: projection is [${projection.shape}] where [${rows},${2 * state}] or wider, by fours, is needed`,
    );
  }
  if (rowsOf(gate) !== rows || gateColumns < channels) {
    throw new UserError(`${operation}: gate is [${gate.shape}] where [${rows},${channels}] or wider is needed`);
  }
  expectShape(operation, "dtRaw", dtRaw, x.shape, "float");
  expectShape(operation, "d", d, [channels], "float");
  expectShape(operation, "dtBias", dtBias, [channels], "float");
}

/** Sizes of a checked scan. */
export function describe({ x, projection, gate }: ScanInputs, { aLog }: ScanParameters, length: number) {
  const channels = widthOf(x), sequences = rowsOf(x) / length;
  const state = sizeOf(aLog.shape) / channels;
  return {
    device: x.device,
    kernels: scanKernels(state),
    sequences,
    channels,
    state,
    chunk,
    chunks: Math.ceil(length / chunk),
    parameters: {
      sequences,
      length,
      channels,
      projectionStride: widthOf(projection) / 4,
      gateStride: widthOf(gate),
    },
  };
}

/** What depends on the channel alone, as the kernels read it; to be released. */
export function prepare(
  { device, kernels, channels, state, parameters }: ReturnType<typeof describe>,
  { aLog, d, dtBias }: ScanParameters,
): Tensor {
  const constants = empty(device, [channels, state + 4], "workspace");
  device.dispatch(kernels.prepare, parameters, [constants, aLog, d, dtBias], lanes(channels));
  return constants;
}
