/** What a model says of a batch, which pipelines keep to themselves. */
import type { Device } from "../../lib/gpu/device.ts";
import { createGroup, releaseGroup, slotIn } from "../../lib/layers/group.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { forward } from "../../lib/layers/run.ts";
import { createSaved } from "../../lib/layers/saved.ts";
import { sequential } from "../../lib/layers/sequential.ts";
import type { Model } from "../../lib/models/model.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import type { Batch } from "../../lib/train/data.ts";

/** The logits [rows, classes] of a model of tokens with these values of its parameters. */
export async function logitsOf(
  model: Model,
  device: Device,
  values: ReadonlyMap<string, Float32Array>,
  { samples, inputs, lengths }: Batch,
): Promise<Float32Array> {
  const layer = sequential(model.layers);
  const placed = placeLayers([layer], device);
  for (const parameter of layer.parameters) {
    device.write(placed.parameter(parameter).value, values.get(parameter.name)!);
  }
  const group = createGroup(placed, 1);
  const sides = lengths ? [["lengths", fromArray(device, [samples], lengths, "activations")] as const] : [];
  const saved = createSaved(group, 0, new Map(sides));
  const shape = model.inputShape(samples);
  const x = slotIn(group, 0, "x", shape, "activations", "u32");
  device.write(x, model.packInputs(inputs));
  const y = empty(device, layer.outputShape(shape), "activations");
  forward(layer, y, x, saved);
  const logits = await toArray(y);
  saved.clear();
  releaseGroup(group);
  release(x, y);
  placed.release();
  return logits;
}
