/** Figures and tables as files, of the kind that their name ends in. */
import { extname } from "node:path";
import { UserError } from "../errors.ts";
import { describeMachine, machineText } from "../measure/machine.ts";
import { checkOutputs, writeOutput } from "../output.ts";
import { expectValue, string } from "../rules.ts";
import type { FigureOptions } from "./drawing.ts";
import type { Table } from "./html.ts";
import { figurePdf } from "./pdf.ts";
import { figurePng } from "./png.ts";
import { plainTable, type Rows } from "./show_table.ts";
import type { Figure } from "./style.ts";
import { figureSvg } from "./svg.ts";
import { tableCsv, tableLatex, tableMarkdown, type TableOptions } from "./table_forms.ts";

/** The forms of a figure, by the ending of a file; a PNG has two pixels for one of the drawing, for print. */
export const figureForms: Readonly<
  Record<string, (figure: Figure, options: FigureOptions) => Promise<Uint8Array | string>>
> = {
  ".svg": figureSvg,
  ".pdf": figurePdf,
  ".png": (figure, options) => figurePng(figure, { ...options, scale: 2 }),
};

/** The forms of a table, by the ending of a file. */
export const tableForms: Readonly<Record<string, (table: Table, options: TableOptions) => string>> = {
  ".csv": tableCsv,
  ".md": tableMarkdown,
  ".tex": tableLatex,
};

/**
 * Writes a figure in the house style: `.svg` and `.pdf` as vectors, `.png` with two pixels for one of the drawing. The file
 * says of itself which version of the package, which commit and which machine made it.
 *
 * @throws {UserError} When the path ends otherwise or cannot be written, and where a package that is needed is not installed.
 * @example
 * ```ts
 * import { ganttFigure, generate, simulate } from "twobp";
 * import { saveFigure } from "twobp/report";
 *
 * const schedule = generate("1f1b-1", { devices: 4 });
 * await saveFigure(ganttFigure(schedule, simulate(schedule)), "plan.pdf");
 * ```
 */
export async function saveFigure(figure: Figure, path: string, options: { width?: number } = {}): Promise<void> {
  const form = formOf("saveFigure", path, figureForms);
  checkOutputs({ saveFigure: path });
  const content = await form(figure, { ...options, about: machineText(describeMachine()) });
  writeOutput(path, typeof content === "string" ? content : [content]);
}

/**
 * Writes a table: `.csv` for programs, `.md` for pages, `.tex` for papers (booktabs). All but CSV begin with a comment that
 * says which version of the package, which commit and which machine made them.
 *
 * @param rows What `table()` shows: objects of one form, names and rows, or an arquero table.
 * @throws {UserError} When the path ends otherwise or cannot be written.
 * @example
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { saveTable } from "twobp/report";
 *
 * saveTable(["gpipe", "1f1b-1"].map((name) => {
 *   const { makespan } = simulate(generate(name, { devices: 4 }));
 *   return { schedule: name, makespan };
 * }), "makespans.tex");
 * ```
 */
export function saveTable(rows: Rows, path: string): void {
  const form = formOf("saveTable", path, tableForms);
  writeOutput(path, form(plainTable(rows), { about: machineText(describeMachine()) }));
}

function formOf<Form>(owner: string, path: string, forms: Readonly<Record<string, Form>>): Form {
  expectValue(`${owner}: the path`, path, string);
  const ending = extname(path).toLowerCase();
  if (Object.hasOwn(forms, ending)) return forms[ending];
  throw new UserError(`${owner}: ${path} must end in one of ${Object.keys(forms).join(", ")}`);
}
