/** Problems that are measured on every device, beside those of a model: one call for each, on tensors without memory. */
import { dryDevices } from "../gpu/dry.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type Observed, observeProblems } from "../ops/choice.ts";
import { layerNorm, layerNormBackwardInput, layerNormSums } from "../ops/layer_norm.ts";
import { crossEntropy, crossEntropyBackward } from "../ops/loss.ts";
import { matmul } from "../ops/matmul.ts";
import { rmsNorm, rmsNormBackwardInput, rmsNormSums } from "../ops/norm.ts";
import { swiglu, swigluBackward } from "../ops/swiglu.ts";
import { type DType, empty } from "../tensor.ts";

/** The standard problems for a device like this one: small enough for a processor, large enough for a GPU. */
export function standardProblems({ info }: Gpu): Promise<Observed[]> {
  const [device] = dryDevices(1, info);
  const side = info.software ? 512 : 4096;
  const floats: DType[] = info.f16 ? ["f32", "f16"] : ["f32"];
  return observeProblems(() => {
    for (const dtype of floats) {
      const square = () => empty(device, [side, side], "workspace", dtype);
      matmul(square(), square(), square());
      matmul(square(), square(), square(), { transposeB: true });
      const gradient = empty(device, [side, side], "workspace");
      matmul(gradient, square(), square(), { transposeA: true, accumulate: true });
      // A gradient of few weights from many rows.
      const rows = () => empty(device, [16 * side, side / 4], "workspace", dtype);
      const few = empty(device, [side / 4, side / 4], "workspace");
      matmul(few, rows(), rows(), { transposeA: true, accumulate: true });
    }
    const wide = () => empty(device, [2048, 1024], "workspace"), twice = () => empty(device, [2048, 2048], "workspace");
    const perRow = () => empty(device, [2048], "workspace"), pairs = () => empty(device, [2048, 2], "workspace");
    const perColumn = () => empty(device, [1024], "workspace");
    const targets = empty(device, [2048], "workspace", "u32");
    rmsNorm(wide(), perRow(), wide(), perColumn());
    rmsNormBackwardInput(wide(), wide(), wide(), perRow(), perColumn());
    rmsNormSums(perColumn(), wide(), wide(), perRow());
    layerNorm(wide(), pairs(), wide(), perColumn(), perColumn(), 1e-5);
    layerNormBackwardInput(wide(), wide(), wide(), pairs(), perColumn());
    layerNormSums(perColumn(), perColumn(), wide(), wide(), pairs());
    swiglu(wide(), twice());
    swigluBackward(twice(), wide(), twice());
    crossEntropy(perRow(), perRow(), wide(), targets);
    crossEntropyBackward(wide(), wide(), perRow(), targets, empty(device, [1], "workspace"));
  });
}
