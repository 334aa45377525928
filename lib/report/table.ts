/** Tables in the terminal. */
import CliTable from "cli-table3";
import { isNumericColumn } from "./columns.ts";
import { escaped } from "../text.ts";
import type { Table } from "./html.ts";

/** The table as text with box-drawing lines; columns that hold only numbers stand on the right. Its notes are lines below. */
export function tableText({ columns, rows, notes = [] }: Table): string {
  const table = new CliTable({
    head: [...columns],
    style: { head: [], border: [], compact: true },
    colAligns: columns.map((_, column) => isNumericColumn(rows, column) ? "right" : "left"),
  });
  for (const row of rows) table.push(row.map((cell) => typeof cell === "string" ? escaped(cell) : cell));
  return [table.toString(), ...notes.map(escaped)].join("\n");
}
