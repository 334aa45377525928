/** A figure that replaces itself while what it shows grows. */
import process from "node:process";
import { display, inNotebook } from "./display.ts";
import { figureBundle } from "./show.ts";
import type { Figure } from "./style.ts";

/** A figure in a cell's output, shown again and again in the same place. */
export interface LiveFigure {
  /** Shows what `make` gives, where it is time for that: seldom enough for drawing to take a tenth of the time at most. Else `make` is not called. */
  update(make: () => Figure): Promise<void>;
  /** Shows the last one, which stays. */
  done(make: () => Figure): Promise<void>;
}

/** Milliseconds between two figures, at least; and how many times what drawing the last one took. */
const least = 1000, times = 10;
let shown = 0;

/**
 * A figure that is drawn anew while a training or a measurement goes on: in a notebook (Jupyter, VS Code) in one place, a terminal gets the title
 * of the last one alone.
 *
 * ```ts
 * import { liveFigure } from "twobp/report";
 *
 * const live = liveFigure(), losses: number[] = [];
 * const curve = () => ({ data: [{ type: "scatter", y: losses }], layout: { title: { text: "Loss" } } });
 * for (let step = 0; step < 3; step++) {
 *   losses.push(1 / (step + 1));
 *   await live.update(curve);
 * }
 * await live.done(curve);
 * ```
 */
export function liveFigure(): LiveFigure {
  const id = `figure-${process.pid}-${shown++}`;
  let due = -Infinity, update = false;
  const show = async (make: () => Figure) => {
    const start = performance.now(), bundle = await figureBundle(make());
    await display(bundle, { id, update });
    update = true;
    const now = performance.now();
    due = now + Math.max(least, times * (now - start));
  };
  return {
    update: async (make) => {
      if (inNotebook() && performance.now() >= due) await show(make);
    },
    done: show,
  };
}
