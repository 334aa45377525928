/** A memory run as a table and as figures. */
import type { LedgerPoint } from "../gpu/ledger_timeline.ts";
import type { MemoryReport, MemoryRow } from "../measure/memory.ts";
import type { Section, Table } from "./html.ts";
import { categories, type Category } from "../memory.ts";
import { type Figure, memoryColours, seriesColours } from "./style.ts";
import { howOf } from "./variant.ts";

/**
 * Peaks of each schedule on each rank, of each replica where there are several, in MiB: all together, how far the prediction was off, with the free buffers that are kept
 * for later (reserved), and by category, each at its own worst moment.
 */
export function memoryTable({ rows, replicas }: MemoryReport): Table {
  return {
    columns: [
      "schedule",
      "2BP",
      "recomputed",
      "sums in",
      ...(replicas === undefined ? [] : ["replica"]),
      "rank",
      "predicted",
      "measured",
      "off",
      "reserved",
      ...categories,
    ],
    rows: rows.flatMap((row) =>
      row.devices.map(({ rank, replica, predicted, measured, predictedPeak, measuredPeak, reserved }) => [
        row.schedule,
        howOf(row),
        row.recompute,
        row.sums.toUpperCase(),
        ...(replica === undefined ? [] : [replica]),
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
export function memoryFigure({ rows, mode, model }: MemoryReport): Figure {
  const bars = rows.flatMap((row) => row.devices.map((device) => ({ row, device })));
  const name = (row: MemoryRow) =>
    [
      row.schedule,
      row.twoStage ? row.policy ? `2BP ${row.policy}` : "split" : row.joined ? "joined" : "",
      row.recompute === "none" ? "" : row.recompute,
      row.sums === "i" ? "" : `sums in ${row.sums.toUpperCase()}`,
    ]
      .filter(Boolean).join("<br>");
  const labels = [
    bars.map(({ row }) => name(row)),
    bars.map(({ device: { rank, replica } }) => replica === undefined ? `${rank}` : `${replica}.${rank}`),
  ];
  const count = rows[0]?.devices.length ?? 0;
  return {
    data: [
      ...categories.map((category) => ({
        type: "bar",
        name: category,
        x: labels,
        y: bars.map(({ device }) => (device.measured ?? device.predicted)[category] / 2 ** 20),
        marker: { color: memoryColours[category], line: { color: "#ffffff", width: 1 } },
      })),
      {
        type: "scatter",
        mode: "markers",
        name: "peak of all together",
        x: labels,
        y: bars.map(({ device }) => (device.measuredPeak ?? device.predictedPeak) / 2 ** 20),
        marker: { color: "#1a1a1a", symbol: "line-ew-open", size: 14, line: { width: 2 } },
      },
    ],
    layout: {
      title: {
        text: `Peaks of ${model.name} by category, ${count} ${
          mode === "predicted" ? "ranks, predicted" : `${mode} devices`
        }`,
      },
      barmode: "stack",
      height: 520,
      margin: { t: 92 }, // two rows of legend
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
      xaxis: {
        title: {
          text: rows[0]?.devices[0].replica === undefined ? "schedule, and rank" : "schedule, and replica.rank",
        },
        tickangle: 0,
      },
      yaxis: { title: { text: "peak (MiB)" } },
    },
  };
}

/** How to draw memory over time. */
export interface MemoryOverTimeOptions {
  /** Over the figure. */
  readonly title?: string;
  /** Where the memory axes end in bytes, for figures that are to be compared; default the highest peak. */
  readonly until?: number;
}

/** Above this many ranks each is a line, below it a panel. */
const ranksWithPanels = 4;
const panelPixels = 170;

/**
 * What is in use on each rank in the course of a step, change by change, by category. Every action of a rank is as wide as
 * any other: the axis is not time.
 *
 * @param timeline Of each rank, as in `StepResult.timeline`.
 */
export function memoryOverTime(
  timeline: readonly (readonly LedgerPoint[])[],
  { title, until = Math.max(...timeline.flat().map(({ total }) => total)) }: MemoryOverTimeOptions = {},
): Figure {
  const panels = timeline.length <= ranksWithPanels ? timeline.length : 1;
  const data = timeline.flatMap((points, rank) => {
    const { x } = positions(points);
    const text = points.map(({ action }) => action);
    const line = { shape: "hv", width: 1.5, color: seriesColours[rank % seriesColours.length] };
    if (panels < timeline.length) {
      const y = points.map(({ total }) => total / 2 ** 20);
      const hovertemplate = "%{text}: %{y:.1f} MiB";
      return [{ type: "scatter", mode: "lines", line, name: `rank ${rank}`, x, y, text, hovertemplate }];
    }
    const axis = rank === 0 ? "" : rank + 1;
    return categories.map((category) => ({
      type: "scatter",
      mode: "lines",
      stackgroup: `rank ${rank}`,
      line: { shape: "hv", width: 0.5, color: memoryColours[category] },
      fillcolor: memoryColours[category],
      name: category,
      legendgroup: category,
      showlegend: rank === 0,
      x,
      y: points.map(({ categories }) => categories[category] / 2 ** 20),
      text,
      hovertemplate: `%{text}, ${category}: %{y:.1f} MiB<extra>rank ${rank}</extra>`,
      xaxis: `x${axis}`,
      yaxis: `y${axis}`,
    }));
  });
  const layout: Record<string, unknown> = {
    ...(title ? { title: { text: title } } : {}),
    height: panels > 1 ? 132 + panelPixels * panels : 360,
  };
  for (let panel = 0; panel < panels; panel++) {
    const axis = panel === 0 ? "" : panel + 1;
    const { starts, names } = positions(timeline[panel]);
    const single = panels < timeline.length;
    layout[`xaxis${axis}`] = {
      anchor: `y${axis}`,
      range: [0, names.length],
      // An axis with too many names has none.
      ...(single || names.length > 40 ? { showticklabels: false } : {
        tickvals: starts.map((start) => start + 0.5),
        ticktext: names,
        tickangle: names.length > 14 ? -90 : 0,
        tickfont: { size: 11 },
      }),
      ...(panel === panels - 1 ? { title: { text: "actions in the order of the rank's list", standoff: 8 } } : {}),
    };
    const top = 1 - panel / panels;
    layout[`yaxis${axis}`] = {
      anchor: `x${axis}`,
      domain: [top - (panels > 1 ? 0.72 : 1) / panels, top],
      range: [0, until * 1.05 / 2 ** 20],
      title: { text: single ? "in use (MiB)" : `rank ${panel} (MiB)` },
      nticks: 4,
    };
  }
  return { data, layout };
}

/** Where each point stands on an axis on which every action is as wide as any other. */
function positions(points: readonly LedgerPoint[]): { x: number[]; starts: number[]; names: string[] } {
  const counts: { name: string; count: number }[] = [];
  for (const { action } of points) {
    const last = counts[counts.length - 1];
    if (last?.name === action) last.count++;
    else counts.push({ name: action, count: 1 });
  }
  const x = counts.flatMap(({ count }, action) => Array.from({ length: count }, (_, index) => action + index / count));
  x[x.length - 1] = counts.length; // up to the end of the axis
  return { x, starts: counts.map((_, action) => action), names: counts.map(({ name }) => name) };
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

const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
