/** What WebGPU says where the memory has run out, as one line. */
import { firstLine } from "../text.ts";

/** What takes less memory. */
const remedy = "a smaller micro-batch or model, recomputation, or more ranks take less";

/** `message` in short: the label of the buffer, as `Device.labelOf` makes it, says how much of what for whom. */
export function memoryError(message: string): string {
  const [, rank, activity, wanted] = /"rank (\d+), ([^":]*): (\d+ bytes of \w+)"/.exec(message) ?? [];
  const what = wanted ? `${wanted} are not to be had for rank ${rank} at ${activity}` : firstLine(message);
  return `out of memory: ${what}; ${remedy}`;
}
