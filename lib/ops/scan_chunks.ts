/** The selective scan on GPUs: all chunks of a sequence at once, see kernels/scan_chunks.wgsl. */
import type { Device } from "../gpu/device.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import type { ParameterValues } from "../gpu/parameters.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import { lanes } from "./elementwise.ts";

/** A checked scan whose rows are cut into chunks. */
export interface ChunkedScan {
  readonly device: Device;
  readonly sequences: number;
  readonly channels: number;
  /** Numbers in the state of a channel. */
  readonly state: number;
  /** Tokens in a chunk. */
  readonly chunk: number;
  /** Chunks in a sequence. */
  readonly chunks: number;
  /** The parameters of all scan kernels. */
  readonly parameters: ParameterValues;
}

/** What a scan reads, its constants prepared. */
export interface ChunkInputs {
  readonly x: Tensor;
  readonly dtRaw: Tensor;
  readonly projection: Tensor;
  readonly gate: Tensor;
  readonly constants: Tensor;
}

/** Records the forward: writes `out` and `states`, in which each chunk's start is kept. */
export function chunkedForward(scan: ChunkedScan, out: Tensor, states: Tensor, inputs: ChunkInputs): void {
  const { device, sequences, channels, state, chunks } = scan;
  const { x, dtRaw, projection, gate, constants } = inputs;
  const { alone, chain, forward } = kernelsOf(scan);
  const parameters = { ...scan.parameters, chunk: 0, span: chunks }, all = lanes(sequences * chunks * channels);
  const spans = empty(device, [sequences, chunks, channels], "workspace");
  device.dispatch(alone, parameters, [states, spans, x, dtRaw, projection, constants], all);
  device.dispatch(chain, parameters, [states, spans, constants], lanes(sequences * channels * state / 4));
  device.dispatch(forward, parameters, [out, states, x, dtRaw, projection, constants, gate], all);
  release(spans);
}

/**
 * Records I but for the gathering of dB and dC: `gather` is called for some chunks at a time, from `first` on, once their
 * parts lie in `partials`.
 */
export function chunkedBackward(
  scan: ChunkedScan,
  dout: Tensor,
  states: Tensor,
  left: { readonly sums: Tensor } | { readonly dscan: Tensor },
  partials: Tensor,
  inputs: ChunkInputs,
  span: number,
  gather: (first: number, count: number) => void,
): void {
  const { device, sequences, channels, state, chunks } = scan;
  const { x, dtRaw, projection, gate, constants } = inputs;
  const { aloneBack, chainBack, backward, backwardLeft, addUp } = kernelsOf(scan);
  const parameters = { ...scan.parameters, chunk: 0, span: chunks };
  const carries = empty(device, states.shape, "workspace");
  const spans = empty(device, [sequences, chunks, channels], "workspace");
  const parts = "sums" in left ? empty(device, [sequences, chunks, channels, state + 4], "workspace") : undefined;
  const behind = [carries, spans, dout, dtRaw, projection, constants, gate];
  device.dispatch(aloneBack, parameters, behind, lanes(sequences * chunks * channels));
  device.dispatch(chainBack, parameters, [carries, spans, constants], lanes(sequences * channels * state / 4));
  for (let first = 0; first < chunks; first += span) {
    const count = Math.min(span, chunks - first);
    const written = "sums" in left ? parts! : left.dscan;
    const views = [dout, dtRaw, gate, states, partials, written, constants, x, projection, carries];
    const these = { ...scan.parameters, chunk: first, span: count };
    device.dispatch("sums" in left ? backward : backwardLeft, these, views, lanes(sequences * count * channels));
    gather(first, count);
  }
  if ("sums" in left) {
    device.dispatch(addUp, parameters, [left.sums, parts!], lanes(sequences * channels * (state / 4 + 1)));
  }
  release(carries, spans, parts);
}

/** Records the sums that W makes, from what I has left it in `dscan`. */
export function chunkedSums(
  scan: ChunkedScan,
  sums: Tensor,
  { x, dtRaw, projection, constants, dscan }: Omit<ChunkInputs, "gate"> & { readonly dscan: Tensor },
): void {
  const { device, sequences, channels, state, chunks } = scan;
  const { alone, chain, aloneSlopes, partsOf, addUp } = kernelsOf(scan);
  const parameters = { ...scan.parameters, chunk: 0, span: chunks }, all = lanes(sequences * chunks * channels);
  const [starts, slopes] = [0, 1].map(() => empty(device, [sequences, chunks, state, channels], "workspace"));
  const spans = empty(device, [sequences, chunks, channels], "workspace");
  const parts = empty(device, [sequences, chunks, channels, state + 4], "workspace");
  const read = [x, dtRaw, projection, constants], vectors = lanes(sequences * channels * state / 4);
  device.dispatch(alone, parameters, [starts, spans, ...read], all);
  device.dispatch(chain, parameters, [starts, spans, constants], vectors);
  device.dispatch(aloneSlopes, parameters, [slopes, starts, ...read], all);
  device.dispatch(chain, parameters, [slopes, spans, constants], vectors);
  device.dispatch(partsOf, parameters, [parts, starts, ...read, slopes, dscan], all);
  device.dispatch(addUp, parameters, [sums, parts], lanes(sequences * channels * (state / 4 + 1)));
  release(starts, slopes, spans, parts);
}

type Name =
  | "alone"
  | "chain"
  | "forward"
  | "aloneBack"
  | "chainBack"
  | "backward"
  | "backwardLeft"
  | "addUp"
  | "aloneSlopes"
  | "partsOf";
const made = new Map<number, Record<Name, Kernel>>();

function kernelsOf({ state, chunk }: ChunkedScan): Record<Name, Kernel> {
  let kernels = made.get(state);
  if (!kernels) {
    const constants = { VECTORS: state / 4, CHUNK: chunk };
    const named = (entry: string) => kernel("scan_chunks", entry, constants);
    kernels = {
      alone: named("alone"),
      chain: named("chain"),
      forward: named("forward"),
      aloneBack: named("alone_back"),
      chainBack: named("chain_back"),
      backward: named("backward"),
      backwardLeft: named("backward_left"),
      addUp: named("add_up"),
      aloneSlopes: kernel("scan_sums_chunks", "alone", constants),
      partsOf: kernel("scan_sums_chunks", "parts_of", constants),
    };
    made.set(state, kernels);
  }
  return kernels;
}
