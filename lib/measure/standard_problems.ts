/** Problems that are measured on every device, beside those of a model: one call for each, on tensors without memory. */
import { dryDevices } from "../gpu/dry.ts";
import type { Gpu } from "../gpu/gpu.ts";
import { type Observed, observeProblems } from "../ops/choice.ts";
import { matmul } from "../ops/matmul.ts";
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
  });
}
