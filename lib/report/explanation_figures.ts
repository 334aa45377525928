/** Figures of a traced step: where it goes, and what else would bring what. */
import type { Alternative, Explanation } from "../measure/explain/explain.ts";
import { kinds } from "../schedules/schedule.ts";
import { type Figure, kindColours, kindNames } from "./style.ts";
import { variantOf } from "./variant.ts";

/** Colours of what is no computation: waits stand out, what the run needs anyway is grey. */
const otherColours = {
  waits: "#d55e00",
  messages: "#56b4e9",
  host: "#5a5a5a",
  tail: "#a6a6a6",
  idle: "#e4e4e4",
};

/** Where the step of median length goes: a bar for each rank, as long as the step. */
export function accountFigure({ steps, typical, schedule }: Explanation): Figure {
  const { name, length, ranks } = steps[typical];
  const bar = (what: string, colour: string, times: readonly number[]) => ({
    type: "bar",
    orientation: "h",
    name: what,
    y: ranks.map((_, rank) => `rank ${rank}`),
    x: [...times],
    text: times.map((time) => time > 0.04 * length ? time.toFixed(1) : ""),
    textposition: "inside",
    insidetextanchor: "middle",
    textangle: 0,
    marker: { color: colour, line: { color: "#ffffff", width: 0.5 } },
    hovertemplate: `${what}: %{x:.2f} ms<extra>%{y}</extra>`,
  });
  const bars = [
    ...kinds.map((kind) => bar(kindNames[kind], kindColours[kind], ranks.map(({ compute }) => compute[kind]))),
    bar("waits", otherColours.waits, ranks.map(({ waiting }) => waiting)),
    bar("messages", otherColours.messages, ranks.map(({ messages }) => messages)),
    bar("host", otherColours.host, ranks.map(({ host }) => host)),
    bar("tail", otherColours.tail, ranks.map(({ tail }) => tail)),
    bar("idle", otherColours.idle, ranks.map(({ idle }) => idle)),
  ];
  return {
    data: bars.filter(({ x }) => x.some((time) => time > 0)),
    layout: {
      title: { text: `Where a traced step of ${variantOf(schedule)} goes: ${name}` },
      barmode: "stack",
      bargap: 0.25,
      height: 150 + 44 * ranks.length,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", yref: "paper", traceorder: "normal" },
      xaxis: { range: [0, length], title: { text: "time (ms)", standoff: 8 } },
      yaxis: { autorange: "reversed", showgrid: false },
    },
  };
}

/** What each alternative is, in the first column of tables and in the figure. */
export function alternativeName({ kind, name }: Alternative): string {
  return kind === "partition" ? `as traced, ${name}` : name;
}

/** More rows than this are no figure. */
const mostRows = 15;

/** Gains of what else could run, with their intervals, and thinner how far the simulator's error widens them. */
export function gainsFigure({ alternatives, schedule }: Explanation): Figure {
  const shown = alternatives.slice(0, mostRows);
  const names = shown.map(alternativeName);
  const gains = shown.map(({ gain }) => gain);
  const bars = (of: (at: number) => readonly [number, number], width: number, thickness: number) => ({
    type: "data",
    symmetric: false,
    array: shown.map((_, at) => of(at)[1] - gains[at]),
    arrayminus: shown.map((_, at) => gains[at] - of(at)[0]),
    thickness,
    width,
  });
  const points = (name: string, colour: string, size: number, error: object) => ({
    type: "scatter",
    mode: "markers",
    name,
    x: gains,
    y: names,
    error_x: { ...error, color: colour },
    marker: { color: colour, size },
    hovertemplate: "%{y}: %{x:.3f}<extra></extra>",
  });
  return {
    data: [
      points("with the simulator's error", "#a6a6a6", 3, bars((at) => shown[at].range, 4, 1.5)),
      points("gain, 95 % interval", "#0072b2", 8, bars((at) => shown[at].interval ?? [gains[at], gains[at]], 0, 4)),
    ],
    layout: {
      title: { text: `Gain over ${variantOf(schedule)} with the traced costs (simulated)` },
      height: 150 + 26 * shown.length,
      xaxis: { title: { text: "step that ran / step instead: above 1 is faster", standoff: 8 } },
      yaxis: { autorange: "reversed", type: "category" },
      shapes: [{
        type: "line",
        x0: 1,
        x1: 1,
        y0: 0,
        y1: 1,
        yref: "paper",
        line: { color: "#808080", width: 1, dash: "dot" },
      }],
    },
  };
}
