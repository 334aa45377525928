/** What a rank's ledger says over time. */
import type { Bytes, Category } from "../memory.ts";
import type { Ledger } from "./ledger.ts";

/** What is in use from one change to the next. */
export interface LedgerPoint {
  /** What ran when it changed: an action as in "0F3", "start" before the first, "optimizer" after the last, "sum 1" where that of stage 1 began. */
  readonly action: string;
  /** Bytes in use, all categories. */
  readonly total: number;
  /** Bytes in use, or free and part of the recording under way: the least budget that would do. */
  readonly needed: number;
  /** Bytes in use, by category. */
  readonly categories: Readonly<Bytes>;
}

/** A recording under way. */
export interface LedgerRecorder {
  /** From here on changes belong to `action`; makes a point of what is in use at its start. */
  begin(action: string): void;
  /** Ends the recording. */
  stop(): readonly LedgerPoint[];
}

/** Records every change of what is in use. A ledger has one recorder at a time. */
export function recordLedger(ledger: Ledger): LedgerRecorder {
  const points: LedgerPoint[] = [];
  let action = "start";
  const add = () =>
    points.push({ action, total: ledger.total(), needed: ledger.needed(), categories: { ...ledger.live } });
  add();
  ledger.observe(add);
  return {
    begin(next) {
      action = next;
      add();
    },
    stop() {
      ledger.observe();
      return points;
    },
  };
}

/** What one action took and left. */
export interface ActionMemory {
  /** As in {@link LedgerPoint.action}. */
  readonly action: string;
  /** In use when it started. */
  readonly before: LedgerPoint;
  /** The moment within it when most was in use. */
  readonly peak: LedgerPoint;
  /** In use when the next started. */
  readonly after: LedgerPoint;
}

/** A timeline action by action: at the start, at the peak within and at the end of each. */
export function actionsOf(timeline: readonly LedgerPoint[]): ActionMemory[] {
  const actions: { action: string; before: LedgerPoint; peak: LedgerPoint; after: LedgerPoint }[] = [];
  for (const point of timeline) {
    const last = actions[actions.length - 1];
    if (!last || last.action !== point.action) {
      actions.push({ action: point.action, before: point, peak: point, after: point });
    } else {
      if (point.total > last.peak.total) last.peak = point;
      last.after = point;
    }
  }
  return actions;
}

/** The point of a timeline at which most was in use; with a category, most of that. */
export function highest(timeline: readonly LedgerPoint[], category?: Category): LedgerPoint {
  const value = (point: LedgerPoint) => category ? point.categories[category] : point.total;
  return timeline.reduce((most, point) => value(point) > value(most) ? point : most);
}
