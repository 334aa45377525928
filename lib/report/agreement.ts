/** An agreement run as a table. */
import type { AgreementReport, RatioOfRounds } from "../measure/agreement.ts";
import { rangeText } from "./certainty.ts";
import type { Section, Table } from "./html.ts";
import { modeNote } from "./throughput.ts";
import { joinedNote } from "./variant.ts";

/** One line on what was run on what. */
export function agreementTitle({ devices, library, real, rows: [{ gain }] }: AgreementReport): string {
  const rounds = gain.each ? ` of ${gain.each.length} rounds` : "";
  const where = library === undefined ? "" : `, the real ones in processes of their own, ${library}`;
  return `${real.model.name} on ${devices} devices, ${real.adapter}${where}; virtual over real, median (quartiles)${rounds}`;
}

/** Step times and gains of virtual devices over those of real ones, with contention and as if each device were alone. */
export function agreementTable({ rows }: AgreementReport): Table {
  const names = ["step", "step with 2BP", "gain"];
  return {
    columns: ["schedule", ...names, ...names.map((name) => `each alone: ${name}`)],
    rows: rows.map(({ schedule, uncontended, ...contended }) => [
      schedule,
      ...[contended, uncontended].flatMap(({ step, gain }) => [...step, gain].map(ratio)),
    ]),
  };
}

/** How sure the medians are. */
export function agreementIntervals({ rows }: AgreementReport): Table {
  return {
    columns: ["schedule", "step", "step with 2BP", "gain"],
    rows: rows.map(({ schedule, step, gain }) => [
      schedule,
      ...[...step, gain].map(({ interval }) => rangeText(interval)),
    ]),
    notes: [
      "95 % intervals of the medians with contention, by percentile bootstrap over the rounds; - for fewer than 6.",
    ],
  };
}

/** What else there is to say, a sentence each. */
export function agreementNotes({ contention, real, virtual }: AgreementReport): string[] {
  return [
    `Contention ${
      contention.toFixed(3)
    }: so many times as long an action takes on a device while all others are busy ` +
    "(by the device times of both kinds of steps).",
    ...joinedNote(real.rows),
    modeNote(real),
    modeNote(virtual),
  ];
}

/** The run as sections of a page. */
export function agreementSections(report: AgreementReport): Section[] {
  const text = agreementNotes(report).join("\n\n");
  return [
    { heading: "Virtual over real", text: `${agreementTitle(report)}.\n\n${text}`, table: agreementTable(report) },
    { heading: "95 % intervals", table: agreementIntervals(report) },
  ];
}

const ratio = ({ ratio, spread }: RatioOfRounds) => `${ratio.toFixed(3)} (${rangeText(spread)})`;
