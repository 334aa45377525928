/** The stretch of time that is looked at, zoomed and moved within a step. */

/** A stretch of time. */
export interface View {
  readonly from: number;
  readonly to: number;
}

/** No closer than so much of the whole. */
const closest = 1 / 2000;

/** The view zoomed by a factor, above 1 closer, about a moment that stays where it is; it stays within 0 to `until`. */
export function zoomed({ from, to }: View, factor: number, about: number, until: number): View {
  const span = Math.min(until, Math.max(until * closest, (to - from) / factor));
  const start = about - (about - from) * span / (to - from);
  return within({ from: start, to: start + span }, until);
}

/** The view moved by a time, as far as there is something to see. */
export function moved({ from, to }: View, by: number, until: number): View {
  return within({ from: from + by, to: to + by }, until);
}

/** The view moved as little as shows a stretch of time, its beginning where it is longer than the view. */
export function showing(view: View, start: number, end: number, until: number): View {
  if (start < view.from) return moved(view, start - view.from, until);
  if (end > view.to) return moved(view, Math.min(end - view.to, start - view.from), until);
  return view;
}

function within({ from, to }: View, until: number): View {
  const span = Math.min(to - from, until), start = Math.max(0, Math.min(from, until - span));
  return { from: start, to: start + span };
}

/** Round moments in a view, 1, 2 or 5 times a power of ten apart, at most so many. */
export function ticksOf({ from, to }: View, most: number): number[] {
  const least = (to - from) / Math.max(most - 1, 1);
  if (!(least > 0)) return [from];
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= least * (1 - 1e-9))!;
  const first = Math.ceil(from / step - 1e-9), last = Math.floor(to / step + 1e-9);
  return Array.from(
    { length: Math.max(last - first + 1, 0) },
    (_, at) => Number(((first + at) * step).toPrecision(12)),
  );
}
