import { isNumericColumn } from "./columns.ts";
import { describeMachine, machineText } from "../measure/machine.ts";
import { writeOutput } from "../output.ts";
import { plotlySource } from "./plotly.ts";
import { type Figure, houseLayout } from "./style.ts";

/** A table: the names of its columns, and rows of texts and numbers. Columns of numbers stand on the right. */
export interface Table {
  /** Column names. */
  columns: readonly string[];
  /** One list of cells a row. */
  rows: readonly (readonly (string | number)[])[];
  /** What must be read with it, a sentence each: under the table wherever it is shown. */
  notes?: readonly string[];
}

/** A part of a page; everything but the heading may be left out. */
export interface Section {
  /** Heading. */
  heading: string;
  /** What its files are called in the folder of a run; default the heading. */
  name?: string;
  /** Paragraphs under the heading, separated by empty lines. */
  text?: string;
  /** A plotly figure; its layout's `height` sets its height in pixels. */
  figure?: Figure;
  /** A table, under the figure. */
  table?: Table;
}

/**
 * Writes one self-contained HTML page: figures drawn by plotly, which is part of the page, and tables. It opens without
 * a network and prints; its foot says which version of the package, which commit and which machine made it. `-` writes it to
 * standard output.
 *
 * @throws {UserError} When the file cannot be written.
 */
export function writePage(path: string, title: string, sections: readonly Section[]): void {
  writeOutput(path, page(title, sections, machineText(describeMachine())));
}

/** The page that `writePage()` writes; `about` is its foot. */
export function page(title: string, sections: readonly Section[], about?: string): string {
  const body = sections.map(sectionHtml).join("\n") + footHtml(about);
  return frame(title, body, sections.map((section) => section.figure));
}

/** What a page says of itself at its end: how it came to be. */
export function footHtml(about?: string): string {
  return about ? `\n<footer>${escape(about)}</footer>` : "";
}

/** A page around a body in which figure number i has an element with the id `figure-i`. */
export function frame(title: string, body: string, figures: readonly (Figure | undefined)[], heading = title): string {
  const plotly = figures.some(Boolean) ? `<script>${plotlySource()}</script>` : "";
  const calls = figures.map((figure, index) =>
    figure && `Plotly.newPlot("figure-${index}", ${json(figure.data)}, ${json(houseLayout(figure.layout))}, ` +
      `{ responsive: true, displaylogo: false });`
  );
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)}</title>
<style>${css}</style>
${plotly}
</head>
<body>
${heading ? `<h1>${escape(heading)}</h1>\n` : ""}${body}
<script>
${calls.filter(Boolean).join("\n")}
</script>
</body>
</html>
`;
}

const css = `
body { font: 15px/1.45 Inter, Helvetica, Arial, sans-serif; color: #1a1a1a; max-width: 1400px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
table { border-collapse: collapse; margin: 0.5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.8rem; border-bottom: 1px solid #d8d8d8; text-align: left; }
pre { background: #f5f5f5; padding: 0.6rem 0.8rem; overflow-x: auto; font-size: 13px; line-height: 1.4; }
pre.output { background: none; border-left: 3px solid #d8d8d8; } p, li { max-width: 62rem; }
footer { margin-top: 2.5rem; font-size: 12px; color: #5a5a5a; }
th { border-bottom: 2px solid #808080; } .number { text-align: right; }
@media print { body { margin: 0; max-width: none; } section { break-inside: avoid; } .modebar { display: none; } }
`;

function sectionHtml({ heading, text, figure, table }: Section, index: number): string {
  const paragraphs = (text ?? "").split(/\n\s*\n/).filter((part) => part.trim()).map((part) =>
    `<p>${escape(part)}</p>`
  );
  const height = Number(figure?.layout?.height ?? 450);
  const drawing = figure ? `<div id="figure-${index}" style="height: ${height}px"></div>` : "";
  return `<section>\n<h2>${escape(heading)}</h2>\n${paragraphs.join("\n")}\n${drawing}\n${
    table ? tableHtml(table) : ""
  }</section>`;
}

function tableHtml({ columns, rows, notes = [] }: Table): string {
  const isNumber = columns.map((_, column) => isNumericColumn(rows, column));
  const cell = (tag: string) => (value: string | number, column: number) =>
    `<${tag}${isNumber[column] ? ' class="number"' : ""}>${escape(String(value))}</${tag}>`;
  const lines = rows.map((row) => `<tr>${row.map(cell("td")).join("")}</tr>`);
  return `<table>\n<thead><tr>${columns.map(cell("th")).join("")}</tr></thead>\n<tbody>\n${
    lines.join("\n")
  }\n</tbody>\n</table>\n${notes.map((note) => `<p>${escape(note)}</p>\n`).join("")}`;
}

/** Text for a page. */
export function escape(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (letter) => entities[letter]);
}

/** JSON that may stand inside a script element: no text in it can end the element. */
function json(value: unknown): string {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}
