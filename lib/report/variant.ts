import type { Variant } from "../measure/variant.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { rangesOf } from "../schedules/transforms/split_stages.ts";

/** Name and 2BP variant: `1f1b-2, 2BP fill, width 2`. */
export function variantOf(schedule: Schedule): string {
  const { name, policy } = schedule;
  const { split, width } = sizesOf(schedule);
  const how = policy ? `2BP ${policy}` : split ? "split" : "";
  const ahead = schedule.actions.some((list) => list.some(({ kind }) => kind === "R"));
  const ranges = rangesOf(schedule.placement);
  const parts = [width > 1 && `width ${width}`, ranges > 1 && `${ranges} ranges a stage`, ahead && "recomputed ahead"];
  return [name, how, ...parts].filter(Boolean).join(", ");
}

/** The cell of the column "2BP". */
export function howOf({ twoStage, policy, width, joined }: Variant): string {
  if (!twoStage) return joined ? "no, I and W joined" : "no";
  return `${policy ?? "its own"}, width ${width}`;
}

/** What the rows without 2BP are of schedules that are split by themselves, in a sentence, if there are any. */
export function joinedNote(rows: readonly Variant[]): string[] {
  const names = [...new Set(rows.filter(({ joined }) => joined).map(({ schedule }) => schedule))];
  if (names.length === 0) return [];
  const who = names.length === 1 ? `${names[0]} is split by itself` : `${names.join(", ")} are split by themselves`;
  return [`${who}: without 2BP is the same order with each I and its W as one B.`];
}

/** Which schedules took turns, where their pipelines did not all fit into memory together. */
export function apartNote(apart: readonly (readonly string[])[]): string {
  return "The pipelines of all placements did not fit into memory together, so only steps within a group alternated: " +
    `${apart.map((names) => names.join(", ")).join("; then ")}.`;
}
