/** What the stages of a model hold, for policies that look at memory. */
import { createModel, type Schedule } from "twobp";
import { stageMemories, type StageMemoryOptions } from "twobp/measure";
import { type Memory, sizesOf } from "twobp/schedules";

/** The memory model of a model that is cut and placed as a schedule wants it, made once for each way. */
export function memoryModels(
  model: string,
  options: Omit<StageMemoryOptions, "stages" | "parts" | "placement">,
): (schedule: Schedule) => Promise<Memory> {
  const made = new Map<string, ReturnType<typeof stageMemories>>();
  return async (schedule) => {
    const { placement } = schedule, width = Math.min(options.width ?? 1, sizesOf(schedule).microbatches);
    const key = `${placement.join()} ${width}`;
    const memories = made.get(key) ?? stageMemories(createModel(model), { ...options, placement, width });
    made.set(key, memories);
    const memory = await memories;
    return (stage) => memory[stage];
  };
}
