/** A memory run as a table and as figures. */
import { categories, type Category } from "../gpu/ledger.ts";
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import type { MemoryReport, MemoryRow } from "../measure/memory.ts";
import type { Section, Table } from "./html.ts";
import { type Figure, seriesColours } from "./style.ts";

/**
 * Peaks of each schedule on each device, in MiB: all together, how far the prediction was off, with the free buffers that are kept
 * for later (reserved), and by category, each at its own worst moment.
 */
export function memoryTable({ rows }: MemoryReport): Table {
  return {
    columns: ["schedule", "2BP", "recomputed", "rank", "predicted", "measured", "off", "reserved", ...categories],
    rows: rows.flatMap((row) =>
      row.devices.map(({ rank, predicted, measured, predictedPeak, measuredPeak, reserved }) => [
        row.schedule,
        variant(row),
        row.recompute,
        rank,
        mebibytes(predictedPeak),
        measuredPeak === undefined ? "-" : mebibytes(measuredPeak),
        measuredPeak === undefined ? "-" : `${(100 * (predictedPeak / measuredPeak - 1)).toFixed(1)} %`,
        mebibytes(reserved),
        ...categories.map((category: Category) => mebibytes((measured ?? predicted)[category])),
      ])
    ),
  };
}

/** What each schedule takes on each rank, a bar by category; the bars add up peaks that may come at different moments. */
export function memoryFigure({ rows, mode }: MemoryReport): Figure {
  const bars = rows.flatMap((row) => row.devices.map((device) => ({ row, device })));
  const labels = [
    bars.map(({ row }) => [row.schedule, variant(row), row.recompute === "none" ? "" : row.recompute].join(" ").trim()),
    bars.map(({ device }) => `rank ${device.rank}`),
  ];
  return {
    data: [
      ...categories.map((category, index) => ({
        type: "bar",
        name: category,
        x: labels,
        y: bars.map(({ device }) => (device.measured ?? device.predicted)[category] / 2 ** 20),
        marker: { color: seriesColours[index] },
      })),
      {
        type: "scatter",
        mode: "markers",
        name: "peak of all together",
        x: labels,
        y: bars.map(({ device }) => (device.measuredPeak ?? device.predictedPeak) / 2 ** 20),
        marker: { color: "#1a1a1a", symbol: "line-ew-open", size: 14 },
      },
    ],
    layout: { barmode: "stack", height: 520, yaxis: { title: { text: `MiB, ${mode}` } } },
  };
}

/** What is in use on each rank over the course of a step, change by change, named by the action that ran. */
export function memoryOverTime(timeline: readonly (readonly LedgerPoint[])[]): Figure {
  return {
    data: timeline.map((points, rank) => ({
      type: "scatter",
      mode: "lines",
      line: { shape: "hv", width: 1.5, color: seriesColours[rank % seriesColours.length] },
      name: `rank ${rank}`,
      x: points.map((_, index) => index / (points.length - 1)),
      y: points.map(({ total }) => total / 2 ** 20),
      text: points.map(({ action }) => action),
      hovertemplate: "%{text}: %{y:.1f} MiB",
    })),
    layout: {
      height: 360,
      xaxis: { title: { text: "changes of the ledger, from the first to the last of the step" } },
      yaxis: { title: { text: "MiB in use" }, rangemode: "tozero" },
    },
  };
}

/** The page of a memory run; `timelines` by name of what they show. */
export function memorySections(
  report: MemoryReport,
  timelines: ReadonlyMap<string, readonly (readonly LedgerPoint[])[]>,
): Section[] {
  return [
    { heading: `Peaks of ${report.model.name} by category`, figure: memoryFigure(report), table: memoryTable(report) },
    ...[...timelines].map(([heading, timeline]) => ({ heading, figure: memoryOverTime(timeline) })),
  ];
}

function variant({ twoStage, policy, width }: MemoryRow): string {
  return twoStage ? `${policy}, width ${width}` : "no";
}

const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
