/** The loss of a run, step by step. */
import { drawn } from "./dom.ts";
import { gutter, margin } from "./scale.ts";

const height = 130, top = 10, bottom = height - 34;

/** Fills a drawing that is so many pixels wide: losses of the steps taken, of so many in all. */
export function drawLosses(drawing: SVGSVGElement, losses: readonly number[], steps: number, width: number): void {
  const finite = losses.filter(Number.isFinite);
  const [least, most] = [Math.min(...finite), Math.max(...finite)], range = most - least || 1;
  const x = (step: number) => gutter + (width - gutter - margin) * step / Math.max(1, steps - 1);
  const y = (loss: number) => bottom - (bottom - top) * (loss - least) / range;
  const points = losses.flatMap((loss, step) => Number.isFinite(loss) ? [`${x(step)},${y(loss)}`] : []);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.setAttribute("width", String(width));
  drawing.setAttribute("height", String(height));
  const label = (loss: number) => drawn("text", { class: "peak", x: gutter - 8, y: y(loss) }, loss.toFixed(2));
  drawing.replaceChildren(
    drawn("line", { class: "axis", x1: gutter, x2: width - margin, y1: bottom + 8, y2: bottom + 8 }),
    drawn("text", { class: "unit", x: (gutter + width - margin) / 2, y: height - 8 }, `loss by step, ${steps} steps`),
    ...finite.length > 0 ? [label(most), ...most > least ? [label(least)] : []] : [],
    drawn("polyline", { class: "losses", points: points.join(" ") }),
    ...points.length > 0
      ? [drawn("circle", { class: "loss", cx: x(losses.length - 1), cy: y(finite[finite.length - 1]), r: 3 })]
      : [],
  );
}
