import type { Mode } from "../gpu/devices.ts";
import { type Action, formatAction, kinds, type Schedule } from "../schedules/schedule.ts";
import { categories } from "../memory.ts";
import type { MemoryPoint, RankMemory } from "../schedules/price/memory_timeline.ts";
import { checkSpans } from "../schedules/check/spans.ts";
import { lower } from "../schedules/program.ts";
import { type Figure, kindColours, kindNames, kindTextColours, memoryColours, sumColour } from "./style.ts";
import { clocksText, type Timeline } from "./timeline.ts";
import { variantOf } from "./variant.ts";

/** How to draw. */
export interface GanttOptions {
  /** What each rank holds, drawn in a panel of its own under the bars. */
  memory?: readonly RankMemory[];
  /** Whether the times were taken from real or virtual devices, or from a trace, which the title says; default what the timeline says. */
  mode?: Mode | "simulated" | "traced";
  /** Unit of time; default `ms` for a step that was run, else `units`. */
  unit?: string;
  /** Unit of memory; default `units`. */
  memoryUnit?: string;
  /** Where the time axis ends, for figures that are to be compared; default the makespan. */
  until?: number;
  /** Where the memory axes end, likewise; default the highest peak. */
  memoryUntil?: number;
}

/** Above this many ranks their memory is drawn as lines in one panel. */
const ranksWithPanels = 16;
/** How opaque the bars of a rank's later stages are, besides those of its first. */
export const laterStageOpacity = 0.6;
const rowPixels = 44;
const panelPixels = 74;
const onePanelPixels = 220;

/**
 * A step as a figure: a row of bars for each rank, kinds by colour, later stages of a rank
 * paler, micro-batches as text, details on hover; sums over replicas on a thinner track below their rank's; the critical
 * path outlined and joined by a line; and under the bars what each rank holds over time, by category.
 *
 * @throws {UserError} What `validate()` says of the schedule, and for times of another one.
 */
export function ganttFigure(schedule: Schedule, timeline: Timeline, options: GanttOptions = {}): Figure {
  checkSpans(lower(schedule), timeline.spans);
  const { memory, mode = timeline.mode ?? "simulated", memoryUnit = "units", until = timeline.makespan } = options;
  const { unit = timeline.mode ? "ms" : "units" } = options;
  const memoryUntil = options.memoryUntil ?? Math.max(0, ...(memory ?? []).map(({ peak }) => peak));
  const devices = schedule.actions.length, { clocks } = timeline;
  const ranks = Array.from({ length: devices }, (_, rank) => rank);
  const panels = !memory ? 0 : devices > ranksWithPanels ? 1 : devices;
  const barPixels = rowPixels * devices;
  const panel = panels === 1 && devices > 1 ? onePanelPixels : panelPixels;
  const space = barPixels + panel * panels + (panels > 0 ? 30 : 0);
  const data = bars(schedule, timeline, unit);
  const layout: Record<string, unknown> = {
    title: { text: `${variantOf(schedule)} on ${devices} ${mode} devices${clocks ? `; ${clocksText(clocks)}` : ""}` },
    height: space + 132,
    barmode: "overlay",
    bargap: 0.18,
    // Both above the bars, so that neither covers them.
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", yref: "paper" },
    margin: { l: 90, r: 30, t: 72, b: 60 },
    uniformtext: { mode: "hide", minsize: 8 },
    xaxis: {
      range: [0, until],
      title: { text: `time (${unit})`, standoff: 8 },
      anchor: panels > 0 ? `y${panels + 1}` : "y",
    },
    yaxis: {
      domain: [1 - barPixels / space, 1],
      range: [devices - 0.5, -0.5],
      tickvals: ranks,
      ticktext: ranks.map((rank) => `rank ${rank}`),
      showgrid: false,
      zeroline: false,
    },
  };
  if (memory) {
    for (let rank = 0; rank < panels; rank++) {
      const top = (panels - rank) * panel / space;
      layout[`yaxis${rank + 2}`] = {
        domain: [top - 0.82 * panel / space, top],
        range: [0, memoryUntil * 1.05],
        nticks: 3,
        title: panels === 1 ? { text: memoryUnit } : { text: `rank ${rank}`, font: { size: 11 }, standoff: 4 },
        zeroline: false,
      };
    }
    data.push(
      ...(panels === 1 && devices > 1 ? lines(memory, until, memoryUnit) : areas(memory, until, memoryUnit)),
    );
    layout.annotations = [{
      text: `memory (${memoryUnit})`,
      xref: "paper",
      yref: "paper",
      x: 0,
      y: panels * panel / space,
      xanchor: "left",
      yanchor: "bottom",
      showarrow: false,
      font: { size: 12 },
    }];
    // Not without entries: plotly then cuts off a part of the panel.
    if (panels === devices) {
      layout.legend2 = { orientation: "h", x: 1, xanchor: "right", y: panels * panel / space, yanchor: "bottom" };
    }
  }
  return { data, layout };
}

function bars(
  schedule: Schedule,
  { spans, sums = [], criticalPath = [] }: Timeline,
  unit: string,
): Record<string, unknown>[] {
  // Where there are sums, a rank's row is shared: three quarters for its actions, the rest for them.
  const track = sums.length > 0 ? { at: -0.1, width: 0.6 } : { at: 0, width: 0.82 };
  const critical = new Set(criticalPath);
  const first = schedule.actions.map((_, rank) => schedule.placement.indexOf(rank));
  const traces = kinds.map((kind) => {
    const own = spans.filter(({ action }) => action.kind === kind);
    return own.length === 0 ? [] : [{
      type: "bar",
      orientation: "h",
      name: kindNames[kind],
      y: own.map(({ rank }) => rank + track.at),
      base: own.map(({ start }) => start),
      x: own.map(({ start, end }) => end - start),
      width: track.width,
      text: own.map(({ action }) => labelOf(action)),
      textposition: "inside",
      insidetextanchor: "middle",
      textangle: 0,
      textfont: { size: 12, color: kindTextColours[kind] },
      marker: {
        color: kindColours[kind],
        // Later stages of a rank are paler.
        opacity: own.map(({ rank, action }) => action.stage === first[rank] ? 1 : laterStageOpacity),
        line: {
          color: own.map((span) => critical.has(span) ? "#000000" : "#ffffff"),
          width: own.map((span) => critical.has(span) ? 2 : 0.5),
        },
      },
      customdata: own.map((
        { action, start, end },
      ) => [formatAction(action), round(start), round(end), round(end - start)]),
      hovertemplate:
        `%{customdata[0]}<br>%{customdata[1]} to %{customdata[2]}: %{customdata[3]} ${unit}<extra></extra>`,
    }];
  });
  const data: Record<string, unknown>[] = traces.flat();
  if (sums.length > 0) {
    data.push({
      type: "bar",
      orientation: "h",
      name: "sum over replicas",
      y: sums.map(({ rank }) => rank + 0.32),
      base: sums.map(({ start }) => start),
      x: sums.map(({ start, end }) => end - start),
      width: 0.18,
      marker: { color: sumColour, line: { color: "#ffffff", width: 0.5 } },
      customdata: sums.map(({ stage, start, end }) => [stage, round(start), round(end), round(end - start)]),
      hovertemplate:
        `sum of stage %{customdata[0]}<br>%{customdata[1]} to %{customdata[2]}: %{customdata[3]} ${unit}<extra></extra>`,
    });
  }
  if (criticalPath.length > 0) {
    data.push({
      type: "scatter",
      mode: "lines",
      name: "critical path",
      x: criticalPath.flatMap(({ start, end }) => [start, end]),
      y: criticalPath.flatMap(({ rank }) => {
        const edge = rank + track.at + track.width / 2;
        return [edge, edge];
      }),
      line: { color: "#000000", width: 1.5 },
      hoverinfo: "skip",
    });
  }
  return data;
}

/** What a bar says: its micro-batch, or the first and the last of several. */
export function labelOf({ microbatches }: Action): string {
  const last = microbatches[microbatches.length - 1];
  return microbatches.length > 1 ? `${microbatches[0]}-${last}` : `${last}`;
}

const round = (time: number) => Number(time.toPrecision(6));

/** Stacked areas, one panel a rank; categories that are nowhere used are left out. */
function areas(memory: readonly RankMemory[], until: number, unit: string): Record<string, unknown>[] {
  const used = categories.filter((name) => memory.some(({ points }) => points.some(({ held }) => held[name] > 0)));
  return memory.flatMap(({ points }, rank) =>
    used.map((name) => ({
      type: "scatter",
      mode: "lines",
      stackgroup: `memory of ${rank}`,
      ...steps(points, until, ({ held }) => held[name]),
      line: { shape: "hv", width: 0.5, color: memoryColours[name] },
      fillcolor: memoryColours[name],
      name,
      legend: "legend2",
      legendgroup: name,
      showlegend: rank === 0,
      yaxis: `y${rank + 2}`,
      hovertemplate: `${name}: %{y} ${unit}<extra>rank ${rank}</extra>`,
    }))
  );
}

function lines(memory: readonly RankMemory[], until: number, unit: string): Record<string, unknown>[] {
  return memory.map(({ points }, rank) => ({
    type: "scatter",
    mode: "lines",
    ...steps(points, until, ({ held }) => categories.reduce((sum, name) => sum + held[name], 0)),
    line: { shape: "hv", width: 1 },
    name: `rank ${rank}`,
    showlegend: false,
    yaxis: "y2",
    hovertemplate: `%{y} ${unit}<extra>rank ${rank}</extra>`,
  }));
}

/** The curve of a rank's memory with one point a moment, the last that counts, up to the end of the axis. */
export function steps(points: readonly MemoryPoint[], until: number, value: (point: MemoryPoint) => number) {
  const x: number[] = [];
  const y: number[] = [];
  for (const point of points) {
    if (x[x.length - 1] === point.time) y[y.length - 1] = value(point);
    else {
      x.push(point.time);
      y.push(value(point));
    }
  }
  return { x: [...x, until], y: [...y, y[y.length - 1]] };
}
