/** What the two schedules come to, in numbers: the table of `schedule simulate`, and the gain in a sentence. */
import { scheduleTable } from "../report/schedule.ts";
import { element } from "./dom.ts";
import { type Outcome, type Part, titleOf } from "./outcome.ts";
import { time } from "./why.ts";

/** The sentence and the table. */
export function figuresOf({ base, split, gain, settings: { cap } }: Outcome): HTMLElement[] {
  const parts = [base, split], running = parts.filter(({ priced }) => priced);
  const { columns, rows } = scheduleTable(running.map(({ priced }) => priced!));
  const cells = parts.map((part) => {
    const row = rows[running.indexOf(part)];
    if (!row) return [titleOf(part), "does not run", ...columns.slice(2).map(() => "-")];
    return [titleOf(part), ...row.slice(1).map(String).map((cell, at) => at === 1 && gain === undefined ? "-" : cell)];
  });
  const over = cap === undefined
    ? []
    : running.filter(({ priced }) => priced!.simulation.peak.some((peak) => peak > cap)).map(titleOf);
  return [
    ...gain === undefined ? [] : [element("p", { class: "gain" }, gainText(base, split, gain))],
    ...over.length > 0 ? [element("p", { class: "bad" }, `Over the cap of ${time(cap!)}: ${over.join("; ")}.`)] : [],
    tableOf(columns, cells, "Figures"),
  ];
}

/** A table that scrolls where it is wider than the page; the first cell of a row is its name. */
export function tableOf(
  columns: readonly string[],
  rows: readonly (readonly (string | number)[])[],
  label: string,
): HTMLElement {
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
    element(
      "tbody",
      {},
      ...rows.map(([name, ...values]) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, String(name)),
          ...values.map((value) => element("td", {}, String(value))),
        )
      ),
    ),
  );
  return element("div", { class: "scrolling", tabindex: 0, role: "region", "aria-label": label }, table);
}

function gainText(base: Part, split: Part, gain: number): string {
  const [from, to] = [base, split].map(({ priced }) => time(priced!.simulation.makespan));
  const what = `${from} units without 2BP, ${to} with it`;
  if (Math.abs(gain - 1) < 1e-9) return `2BP changes nothing here: ${what}.`;
  return gain > 1
    ? `2BP makes the step ${gain.toFixed(3)} times as fast: ${what}.`
    : `2BP makes the step ${(100 * (1 / gain - 1)).toFixed(1)} % slower: ${what}.`;
}
