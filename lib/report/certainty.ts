/** How far measured ratios can be trusted, in tables and in sentences. */
import { fewest } from "../measure/bootstrap.ts";

/** A ratio of what was measured together, and what it is called. */
export interface MeasuredRatio {
  /** What the sentence calls it. */
  readonly name: string;
  /** Lower and upper quartile. */
  readonly spread: readonly [number, number];
  /** Of 95 % confidence. */
  readonly interval?: readonly [number, number];
  /** Ratios that these are of. */
  readonly pairs: number;
  /** How many of the pairs had one long step: only the one without 2BP, only the one with. */
  readonly outliers?: readonly [number, number];
}

/** Two ends in a cell: `1.092 - 1.143`, or `-` where there are none. */
export function rangeText(range: readonly [number, number] | undefined, digits = 3): string {
  return range?.map((value) => value.toFixed(digits)).join(" - ") ?? "-";
}

/** Whose ratio may as well be 1, and how the intervals came to be: the notes of a table of ratios. */
export function certaintyNotes(ratios: readonly MeasuredRatio[]): string[] {
  const holds = (range?: readonly [number, number]) => range !== undefined && range[0] <= 1 && 1 <= range[1];
  const names = (some: readonly MeasuredRatio[]) => some.map(({ name }) => name).join(", ");
  const byQuartiles = ratios.filter(({ spread }) => holds(spread));
  const byInterval = ratios.filter(({ spread, interval }) => !holds(spread) && holds(interval));
  const notes: string[] = [];
  if (byQuartiles.length > 0) notes.push(`${names(byQuartiles)}: the quartiles include 1: not shown by this run.`);
  if (byInterval.length > 0) notes.push(`${names(byInterval)}: the 95 % interval includes 1: not shown by this run.`);
  if (ratios.some(({ interval }) => interval)) {
    notes.push("95 % interval: of the median, by percentile bootstrap over the pairs, expanded for few of them.");
  }
  notes.push(...outliersNote(ratios));
  if (ratios.some(({ pairs }) => pairs < fewest)) notes.push(`Fewer than ${fewest} pairs have no 95 % interval.`);
  return notes;
}

/** Which ratios have pairs with one long step, in a sentence; nothing where none has. */
function outliersNote(ratios: readonly MeasuredRatio[]): string[] {
  const held = ratios.flatMap(({ name, pairs, outliers: [first, second] = [0, 0] }) =>
    first + second === 0 ? [] : [`${name} ${first + second} of ${pairs} (${first} without 2BP, ${second} with)`]
  );
  if (held.length === 0) return [];
  return [
    `Pairs of which one step alone was long, more than 5 median absolute deviations above its schedule's median: ${
      held.join(", ")
    }. Rather the machine than the schedule: they count as any pair, and move medians little.`,
  ];
}
