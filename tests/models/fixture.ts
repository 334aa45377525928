/** Reads the fixtures that tests/fixtures/make.py has made with PyTorch. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Batch, ignored } from "../../lib/train/data.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";

/** What PyTorch says of a tiny model. */
export interface Fixture {
  /** Of the reference implementation, by its own names. */
  readonly configuration: Readonly<Record<string, number>>;
  /** Of ResNet: blocks in each of its parts. */
  readonly blocks: readonly number[];
  readonly microbatches: number;
  readonly batch: Batch;
  readonly loss: number;
  /** Path of the weights, as the reference implementation stores them. */
  readonly weights: string;
  /** Gradients, and the running statistics after the step, by the reference's names. */
  readonly expected: ReadonlyMap<string, Float32Array>;
}

const path = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

/** The floats in a file beside the fixtures. */
export function readTensors(name: string): Map<string, Float32Array> {
  const file = openTensorFile(path(name));
  try {
    const floats = [...file.tensors].filter(([, { dtype }]) => dtype === "F32" || dtype === "F16");
    return new Map(floats.map(([name]) => [name, file.read(name)]));
  } finally {
    file.close();
  }
}

/** The fixture of a name; `images` have pixels instead of tokens. */
export function readFixture(name: string, { images = false } = {}): Fixture {
  const { configuration, microbatches, samples, loss } = JSON.parse(readFileSync(path(`${name}.json`), "utf8"));
  const batch = readTensors(`${name}.batch.safetensors`);
  const inputs = batch.get("inputs")!;
  const lengths = batch.get("lengths");
  return {
    configuration,
    blocks: configuration.blocks ?? [],
    microbatches,
    loss,
    batch: {
      samples,
      inputs: images ? inputs : Uint32Array.from(inputs),
      targets: Uint32Array.from(batch.get("targets")!, (target) => target < 0 ? ignored : target),
      ...(lengths ? { lengths: Uint32Array.from(lengths) } : {}),
    },
    weights: path(`${name}.weights.safetensors`),
    expected: readTensors(`${name}.expected.safetensors`),
  };
}
