/** What the stages of a model hold, for policies that look at memory. */
import { stageMemories, type StageMemoryOptions } from "../lib/measure/stage_memory.ts";
import { createModel } from "../lib/models/registry.ts";
import type { Memory } from "../lib/schedules/price/memory.ts";
import type { Schedule } from "../lib/schedules/schedule.ts";

/** The memory model of a model that is cut as a schedule wants it, made once for each number of stages. */
export function memoryModels(
  model: string,
  options: Omit<StageMemoryOptions, "stages" | "parts">,
): (schedule: Schedule) => Promise<Memory> {
  const made = new Map<number, ReturnType<typeof stageMemories>>();
  return async ({ placement: { length: stages } }) => {
    const memories = made.get(stages) ?? stageMemories(createModel(model), { ...options, stages });
    made.set(stages, memories);
    const memory = await memories;
    return (stage) => memory[stage];
  };
}
