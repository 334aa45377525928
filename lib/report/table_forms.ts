/** Tables for other programs and for papers. */
import { escaped } from "../text.ts";
import { isNumericColumn } from "./columns.ts";
import type { Table } from "./html.ts";

/** How to write a table that people read. */
export interface TableOptions {
  /** How the table came to be, as a comment above it; default nothing. */
  about?: string;
}

/**
 * A table as CSV (RFC 4180 with line feeds): the names of the columns, then the rows, every cell as it is shown. Notes are
 * left out, so that whatever reads CSV reads it.
 *
 * @example
 * ```ts
 * import { tableCsv } from "twobp/report";
 *
 * console.log(tableCsv({ columns: ["schedule", "gain"], rows: [["1f1b-1, mine", 1.19]] }));
 * // schedule,gain
 * // "1f1b-1, mine",1.19
 * ```
 */
export function tableCsv({ columns, rows }: Table): string {
  const cell = (value: string | number) => {
    const text = String(value);
    return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/**
 * A table as GitHub's Markdown, with what would be markup in a cell escaped. Columns of numbers stand on the right; notes
 * are paragraphs below.
 *
 * @example
 * ```ts
 * import { tableMarkdown } from "twobp/report";
 *
 * console.log(tableMarkdown({ columns: ["schedule", "gain"], rows: [["a|b", 1.19]] }));
 * // | schedule | gain |
 * // | --- | ---: |
 * // | a\|b | 1.19 |
 * ```
 */
export function tableMarkdown({ columns, rows, notes = [] }: Table, { about }: TableOptions = {}): string {
  const text = (value: string | number) => escaped(String(value)).replace(/[\\|`*_[\]<&~]/g, "\\$&");
  const line = (cells: readonly (string | number)[]) => `| ${cells.map(text).join(" | ")} |\n`;
  const rule = columns.map((_, column) => isNumericColumn(rows, column) ? "---:" : "---");
  const comment = about ? `<!-- ${escaped(about).replaceAll("-->", "-- >")} -->\n\n` : "";
  const table = `${line(columns)}| ${rule.join(" | ")} |\n${rows.map(line).join("")}`;
  return comment + table + notes.map((note) => `\n${text(note)}\n`).join("");
}

/** What TeX reads as something else than itself, and how it is written. */
const specials: Readonly<Record<string, string>> = {
  "\\": "\\textbackslash{}",
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  "<": "\\textless{}",
  ">": "\\textgreater{}",
  "|": "\\textbar{}",
  '"': "{''}",
  // After \\ and \midrule these two begin an argument.
  "[": "{[}",
  "*": "{*}",
};

/**
 * A table as LaTeX in the style of the package booktabs, for `\input` inside a `table`: columns of numbers stand on the
 * right, minus signs and ranges are set as such, and notes are lines below in small print.
 *
 * @example
 * ```ts
 * import { tableLatex } from "twobp/report";
 *
 * console.log(tableLatex({ columns: ["schedule", "bubble"], rows: [["a_b", "12.5 %"]] }));
 * // \begin{tabular}{lr}
 * // \toprule
 * // schedule & bubble \\
 * // \midrule
 * // a\_b & 12.5 \% \\
 * // \bottomrule
 * // \end{tabular}
 * ```
 */
export function tableLatex({ columns, rows, notes = [] }: Table, { about }: TableOptions = {}): string {
  // A dash, comma or quote before its like, and ! or ? before a `, would become another character.
  const text = (value: string) =>
    escaped(value).replace(/[&%$#_{}\\~^<>|"[*]|([-,'`])(?=\1)|[!?](?=`)/g, (letter) => {
      if ("&%$#_{}".includes(letter)) return `\\${letter}`;
      return specials[letter] ?? `${letter}{}`;
    });
  const cell = (value: string | number) => {
    const shown = String(value);
    if (shown === "-") return "--";
    return text(shown).replaceAll(" - ", "--").replace(/(^|[\s(]|--)-(?=[\d.])/g, "$1$-$");
  };
  const line = (cells: readonly (string | number)[]) => `${cells.map(cell).join(" & ")} \\\\\n`;
  const alignment = columns.map((_, column) => isNumericColumn(rows, column) ? "r" : "l").join("");
  const comment = about ? `% ${escaped(about)}\n` : "";
  const table = `\\begin{tabular}{${alignment}}\n\\toprule\n${line(columns)}\\midrule\n${
    rows.map(line).join("")
  }\\bottomrule\n\\end{tabular}\n`;
  return comment + table + notes.map((note) => `\n\\smallskip\n{\\small ${text(note)}\\par}\n`).join("");
}
