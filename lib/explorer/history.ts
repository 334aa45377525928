/** What can be undone: states one after the other. */

/** States before the one that is shown, and after it. */
export interface History<T> {
  readonly past: readonly T[];
  readonly now: T;
  readonly future: readonly T[];
  /** What the last change was to: further ones to the same replace it, so that a typed number is one step. */
  readonly to?: string;
}

/** Steps that are kept. */
const most = 200;

/** A history that begins. */
export function begin<T>(now: T): History<T> {
  return { past: [], now, future: [] };
}

/** Goes on to another state. */
export function change<T>({ past, now, to: before }: History<T>, next: T, to?: string): History<T> {
  const goesOn = to !== undefined && to === before;
  return { past: goesOn ? past : [...past, now].slice(-most), now: next, future: [], to };
}

/** One step back; the same where there is none. */
export function undo<T>(history: History<T>): History<T> {
  const { past, now, future } = history;
  return past.length === 0
    ? history
    : { past: past.slice(0, -1), now: past[past.length - 1], future: [now, ...future] };
}

/** One step forward again; the same where there is none. */
export function redo<T>(history: History<T>): History<T> {
  const { past, now, future: [next, ...future] } = history;
  return history.future.length === 0 ? history : { past: [...past, now], now: next, future };
}
