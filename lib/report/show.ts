import { type Bundle, display, inNotebook } from "./display.ts";
import { figurePng } from "./png.ts";
import { type Figure, houseLayout } from "./style.ts";
import { titleOf } from "./title.ts";

/**
 * Shows a figure in a notebook: for front ends that know plotly as something to zoom and hover, for all others, GitHub and
 * nbconvert among them, as a PNG. A terminal gets the title.
 *
 * @example
 * ```ts
 * import { ganttFigure, generate, show, simulate } from "twobp";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * await show(ganttFigure(schedule, simulate(schedule)));
 * ```
 */
export async function show(figure: Figure): Promise<void> {
  await display(await figureBundle(figure));
}

/** A figure in the forms that front ends know; outside of notebooks its title alone. */
export async function figureBundle(figure: Figure): Promise<Bundle> {
  const text = { "text/plain": `[figure: ${titleOf(figure) ?? "untitled"}]` };
  if (!inNotebook()) return text;
  const { data } = figure;
  return {
    "application/vnd.plotly.v1+json": { data, layout: houseLayout(figure.layout), config: { displaylogo: false } },
    "image/png": Buffer.from(await figurePng(figure)).toString("base64"),
    ...text,
  };
}
