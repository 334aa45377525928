/** Figures as SVG. */
import { drawer, type FigureOptions } from "./drawing.ts";
import { escaped } from "../text.ts";
import { escape } from "./html.ts";
import type { Figure } from "./style.ts";

/**
 * Draws a figure in the house style as SVG: what it says of itself is its `<metadata>`. Texts are texts, in Open Sans where
 * the reader's machine has it; {@link figurePdf} brings the font along.
 *
 * @throws {UserError} Where a package that it needs is not installed.
 * @example
 * ```ts
 * import { ganttFigure, generate, simulate } from "twobp";
 * import { figureSvg } from "twobp/report";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * const svg = await figureSvg(ganttFigure(schedule, simulate(schedule)));
 * console.log(svg.startsWith("<svg")); // true
 * ```
 */
export async function figureSvg(figure: Figure, options: FigureOptions = {}): Promise<string> {
  const { draw } = await drawer();
  const { svg } = await draw(figure, options);
  if (!options.about) return svg;
  const start = svg.indexOf(">") + 1;
  return `${svg.slice(0, start)}<metadata>${escape(escaped(options.about))}</metadata>${svg.slice(start)}`;
}
