/** Reads the fixtures that tests/fixtures/make.py has made with PyTorch. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Batch, ignored } from "../../lib/train/data.ts";
import { openTensorFile } from "../../lib/weights/safetensors.ts";

/** What PyTorch says of a tiny model. */
export interface Fixture {
  /** The folder, a checkpoint as the reference implementation stores it. */
  readonly folder: string;
  /** Of ResNet, which stores none: its sizes. */
  readonly configuration: {
    readonly width: number;
    readonly blocks: number[];
    readonly classes: number;
    readonly size: number;
  };
  readonly microbatches: number;
  readonly batch: Batch;
  readonly loss: number;
  /** Gradients, the running statistics after the step or the logits of the batch, by the reference's names. */
  readonly expected: ReadonlyMap<string, Float32Array>;
}

const path = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url));

/** The floats in a file among the fixtures. */
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
  const { configuration, microbatches, samples, loss } = JSON.parse(readFileSync(path(`${name}/fixture.json`), "utf8"));
  const batch = readTensors(`${name}/batch.safetensors`);
  const inputs = batch.get("inputs")!;
  const lengths = batch.get("lengths");
  return {
    folder: path(name),
    configuration,
    microbatches,
    loss,
    batch: {
      samples,
      inputs: images ? inputs : Uint32Array.from(inputs),
      targets: Uint32Array.from(batch.get("targets")!, (target) => target < 0 ? ignored : target),
      ...(lengths ? { lengths: Uint32Array.from(lengths) } : {}),
    },
    expected: readTensors(`${name}/expected.safetensors`),
  };
}
