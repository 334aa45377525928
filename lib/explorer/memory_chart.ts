/** Draws what each rank of a schedule holds over time, by category, a strip for each. */
import { categories } from "../memory.ts";
import { steps } from "../report/gantt.ts";
import { memoryColours } from "../report/style.ts";
import type { RankMemory } from "../schedules/price/memory_timeline.ts";
import { drawn } from "./dom.ts";
import { gutter, margin, type Scale } from "./scale.ts";
import { time } from "./why.ts";

const stripHeight = 38, gap = 8, above = 22;

/** The height of the strips of so many ranks. */
export const memoryHeight = (ranks: number): number => above + ranks * (stripHeight + gap);

/** Categories that any rank holds something of. */
export function usedCategories(memory: readonly RankMemory[]): (typeof categories)[number][] {
  return categories.filter((name) => memory.some(({ points }) => points.some(({ held }) => held[name] > 0)));
}

/**
 * The strips.
 *
 * @param top Where they begin.
 * @param most Where the axis of each ends.
 * @param until When the step ends.
 */
export function drawMemory(
  memory: readonly RankMemory[],
  { x, width, clip }: Scale,
  { top, most, until, cap }: { top: number; most: number; until: number; cap?: number },
): SVGElement[] {
  const used = usedCategories(memory), perUnit = stripHeight / (most || 1);
  const result: SVGElement[] = [
    drawn("text", { class: "unit start", x: gutter, y: top + 12 }, "memory (units), and the peak of each rank"),
  ];
  memory.forEach(({ points, peak }, rank) => {
    const bottom = top + above + rank * (stripHeight + gap) + stripHeight;
    const over = cap !== undefined && peak > cap;
    const row: SVGElement[] = [drawn("rect", {
      class: "row",
      x: gutter,
      y: bottom - stripHeight,
      width: width - gutter - margin,
      height: stripHeight,
    })];
    let below: number[] | undefined;
    for (const name of used) {
      const { x: times, y: amounts } = steps(points, until, ({ held }) => held[name]);
      const sums: number[] = amounts.map((amount, at) => amount + (below?.[at] ?? 0));
      const under = below ?? sums.map(() => 0);
      row.push(drawn("path", {
        fill: memoryColours[name],
        d: area(times.map(x), sums.map((sum) => bottom - sum * perUnit), under.map((sum) => bottom - sum * perUnit)),
      }));
      below = sums;
    }
    result.push(drawn("g", { "clip-path": clip }, ...row));
    if (cap !== undefined && cap <= most) {
      const at = bottom - cap * perUnit;
      result.push(drawn("line", { class: "cap", x1: gutter, x2: width - margin, y1: at, y2: at }));
    }
    result.push(
      drawn("text", { class: "rank", x: gutter - 8, y: bottom - stripHeight / 2 - 7 }, `rank ${rank}`),
      drawn("text", { class: over ? "peak over" : "peak", x: gutter - 8, y: bottom - stripHeight / 2 + 8 }, time(peak)),
    );
  });
  return result;
}

/** A stretch between two curves of steps that have the same times. */
function area(x: readonly number[], upper: readonly number[], lower: readonly number[]): string {
  const along = (y: readonly number[]) =>
    x.map((at, index) => index === 0 ? `${at},${y[0]}` : `${at},${y[index - 1]} ${at},${y[index]}`);
  return `M${along(upper).join(" ")} L${along(lower).join(" ").split(" ").reverse().join(" ")} Z`;
}
