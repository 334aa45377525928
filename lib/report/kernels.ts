/** A run of the kernel benchmark as tables and as a figure. */
import type { KernelRow, KernelsReport } from "../measure/kernels.ts";
import type { Section, Table } from "./html.ts";
import { type Figure, seriesColours } from "./style.ts";

/** One line on what was measured on what, and what it does at best. */
export function kernelsTitle({ adapter, peak }: KernelsReport): string {
  return `Kernels on ${adapter}; at best ${significant(peak.gflops)} GFLOP/s (f32 in registers) and ` +
    `${significant(peak.gigabytes)} GB/s (a copy of 64 MiB), measured in the same run`;
}

/** Every candidate, problem by problem. */
export function kernelsTable({ rows }: KernelsReport): Table {
  return {
    columns: ["operation", "shape", "dtype", "candidate", "ms", "quartiles", "rate", "unit", "of peak", "chosen"],
    rows: rows.map((row) => [
      row.operation,
      row.shape,
      row.dtype,
      row.candidate,
      significant(row.ms),
      row.quartiles.map(significant).join(" - "),
      significant(row.rate),
      row.unit,
      `${(100 * row.shareOfPeak).toFixed(0)} %`,
      row.chosen ? (row.usual ? "yes" : "measured") : row.usual ? "the rule's" : "",
    ]),
  };
}

/** What else there is to say, a sentence each. */
export function kernelsNotes({ rows, dropped, left }: KernelsReport): string[] {
  const notes = dropped.map(({ operation, shape, candidate, reason }) =>
    `Dropped: ${operation} ${shape}, ${candidate}: ${reason}.`
  );
  const gained = gains(rows);
  if (gained.length > 0) {
    const [most] = gained;
    notes.push(
      `Measuring beats the rule on ${gained.length} of ${problems(rows).length} problems, most on ${most.operation} ` +
        `${most.shape}: ${most.gain.toFixed(2)} times as fast.`,
    );
  }
  if (left) notes.push(`Not measured, since the time was over: ${left} of ${problems(rows).length + left} problems.`);
  return notes;
}

/** The page of a run. */
export function kernelsSections(report: KernelsReport): Section[] {
  const { rows } = report;
  const series = (name: string, which: (row: KernelRow) => boolean, color: string) => ({
    type: "bar",
    name,
    x: rows.filter(which).map((row) => 100 * row.shareOfPeak),
    y: rows.filter(which).map(problemName),
    orientation: "h",
    marker: { color },
    text: rows.filter(which).map((row) => row.candidate),
  });
  const figure: Figure = {
    data: [
      series("by the rule", (row) => row.usual, seriesColours[1]),
      series("chosen", (row) => row.chosen, seriesColours[0]),
    ],
    layout: {
      height: 140 + 34 * problems(rows).length,
      margin: { l: 330 },
      barmode: "group",
      xaxis: { title: { text: "% of peak" } },
      yaxis: { autorange: "reversed", automargin: true },
    },
  };
  return [
    { heading: "Share of the device's peak", text: `${kernelsTitle(report)}.`, figure },
    { heading: "Candidates", text: kernelsNotes(report).join("\n\n"), table: kernelsTable(report) },
  ];
}

function gains(rows: readonly KernelRow[]) {
  return rows.filter((row) => row.chosen && !row.usual).flatMap((row) => {
    const usual = rows.find((each) => each.usual && problemName(each) === problemName(row));
    return usual ? [{ ...row, gain: usual.ms / row.ms }] : [];
  }).sort((a, b) => b.gain - a.gain);
}

const problemName = ({ operation, shape }: KernelRow) => `${operation} ${shape}`;
const problems = (rows: readonly KernelRow[]) => [...new Set(rows.map(problemName))];
const significant = (value: number) => String(Number(value.toPrecision(3)));
