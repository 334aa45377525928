import { optional } from "../optional.ts";
import { isNumericColumn } from "./columns.ts";
import { display } from "./display.ts";
import type { Table } from "./html.ts";
import { tableText } from "./table.ts";

/** The part of arquero's tables that is used here. */
export interface ColumnTable {
  /** Names of the columns, in order. */
  columnNames(): string[];
  /** The rows. */
  objects(): object[];
}

/** What can be shown as a table: objects of one form, one a row; names and rows; or an arquero table. */
export type Rows = readonly Readonly<Record<string, string | number>>[] | Table | ColumnTable;

/**
 * Shows a table: HTML in a notebook, text in a terminal. Columns that hold only numbers stand on the right.
 *
 * @example
 * ```ts
 * import { generate, simulate, table } from "twobp";
 *
 * await table(["gpipe", "1f1b-1"].map((name) => {
 *   const { makespan, peak } = simulate(generate(name, { devices: 4 }));
 *   return { schedule: name, makespan, "most held": Math.max(...peak) };
 * }));
 * ```
 */
export async function table(rows: Rows): Promise<void> {
  const plain = plainTable(rows);
  await display({ "text/html": await tableHtml(plain), "text/plain": tableText(plain) });
}

/** Any of the forms as names and rows. */
export function plainTable(rows: Rows): Table {
  if (!("length" in rows)) {
    if (!("columnNames" in rows)) return rows;
    rows = rows.objects() as Record<string, string | number>[];
  }
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return { columns, rows: rows.map((row) => columns.map((name) => row[name] ?? "-")) };
}

async function tableHtml({ columns, rows, notes = [] }: Table): Promise<string> {
  const { table: columnTable } = await optional("arquero", "Tables of notebooks are made by", () => import("arquero"));
  // arquero escapes what is in cells, and not the names.
  const names = columns.map(escape);
  const data = columnTable(names.map((name, column) => [name, rows.map((row) => String(row[column]))]));
  const align = Object.fromEntries(names.map((name, column) => [name, isNumericColumn(rows, column) ? "r" : "l"]));
  const html = data.toHTML({ limit: Infinity, align: align as Record<string, "l" | "r"> });
  return html + notes.map((note) => `<p>${escape(note)}</p>`).join("");
}

const escape = (text: string) => text.replace(/[&<>]/g, (letter) => `&#${letter.charCodeAt(0)};`);
