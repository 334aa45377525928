/** Where moments and ranks are in a drawing, in pixels. */
import type { View } from "./view.ts";

/** Left of the rows, where ranks are named, and right of them. */
export const gutter = 56, margin = 12;
/** Height of a rank's row, and of the bars in it. */
export const rowHeight = 34, barHeight = 27;
const above = 6;

/** Places in a drawing that is so wide. */
export interface Scale {
  readonly view: View;
  readonly width: number;
  /** What cuts off what is outside the view. */
  readonly clip: string;
  /** The place of a moment. */
  x(time: number): number;
  /** The moment at a place. */
  timeAt(x: number): number;
  /** The top of a rank's bars. */
  y(rank: number): number;
}

/** The places of a view in a drawing. */
export function scaleOf(view: View, width: number, clip: string): Scale {
  const room = Math.max(width - gutter - margin, 50), perUnit = room / (view.to - view.from || 1);
  return {
    view,
    width,
    clip,
    x: (time) => gutter + (time - view.from) * perUnit,
    timeAt: (x) => view.from + (x - gutter) / perUnit,
    y: (rank) => above + rank * rowHeight + (rowHeight - barHeight) / 2,
  };
}

/** The height of the rows of so many ranks. */
export const rowsHeight = (ranks: number): number => above + ranks * rowHeight;
