/** What keys do on the bars of a drawing, and the words that say so. */
import type { Bar, Part } from "./outcome.ts";
import { whyOf } from "./why.ts";

/** What a key asks for. */
export type Asked =
  /** Go to another bar. */
  | { readonly go: { readonly rank: number; readonly index: number } }
  /** Move the bar within its rank's list. */
  | { readonly move: number }
  /** Zoom by a factor, or see everything. */
  | { readonly zoom: number | "all" };

/** What counts of an event of the keyboard. */
export interface Pressed {
  readonly key: string;
  readonly shiftKey: boolean;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
}

/** What keys do, for the page to say. */
export const keyHelp: readonly (readonly [keys: string, meaning: string])[] = [
  ["← →", "the action before or after, on the same rank"],
  ["↑ ↓", "what the rank above or below does at that time"],
  ["Shift ← →", "move the action within its rank"],
  ["Enter", "go to what the action waited for"],
  ["Home End", "the first or the last action of the rank"],
  ["+ − 0", "zoom in, zoom out, see all"],
  ["Ctrl Z, Ctrl Y", "undo, redo"],
  ["Esc", "give up a drag"],
];

/** What a key asks for that is pressed on a bar; undefined where it is none of these. */
export function askedBy(
  { key, shiftKey, ctrlKey, metaKey, altKey }: Pressed,
  part: Part,
  bar: Bar,
): Asked | undefined {
  if (ctrlKey || metaKey || altKey) return undefined;
  const { rank, index } = bar, last = part.bars[rank].length - 1;
  const at = (place: number) => ({ go: { rank, index: Math.max(0, Math.min(place, last)) } });
  switch (key) {
    case "ArrowLeft":
      return shiftKey ? { move: index - 1 } : at(index - 1);
    case "ArrowRight":
      return shiftKey ? { move: index + 1 } : at(index + 1);
    case "ArrowUp":
      return beside(part, bar, rank - 1);
    case "ArrowDown":
      return beside(part, bar, rank + 1);
    case "Home":
      return at(0);
    case "End":
      return at(last);
    case "Enter": {
      const { cause } = whyOf(part, bar);
      return cause && { go: cause };
    }
    case "+":
    case "=":
      return { zoom: 1.5 };
    case "-":
      return { zoom: 1 / 1.5 };
    case "0":
      return { zoom: "all" };
  }
}

/** The bar of another rank that is nearest in time. */
function beside(part: Part, { start, end }: Bar, rank: number): Asked | undefined {
  const row = part.bars[rank];
  if (!row || row.length === 0) return undefined;
  const middle = (start + end) / 2;
  const away = (bar: Bar) => Math.max(bar.start - middle, middle - bar.end, 0);
  return { go: { rank, index: row.reduce((best, bar) => away(bar) < away(best) ? bar : best).index } };
}
