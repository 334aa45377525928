/**
 * The house style of every figure: one font, one background, one colour for each kind of action.
 *
 * @module
 */

import type { Kind } from "../schedules/schedule.ts";
import type { Category } from "../memory.ts";

/**
 * Colours of the kinds of action, after Okabe and Ito: they differ in lightness as well as in hue, so that they
 * hold in grey print and for colour-blind readers.
 */
export const kindColours: Readonly<Record<Kind, string>> = {
  F: "#0072b2",
  I: "#f0c24b",
  W: "#4db592",
  B: "#e39bc4",
  R: "#a6d8f0",
};

/** Colour of text on those. */
export const kindTextColours: Readonly<Record<Kind, string>> = {
  F: "#ffffff",
  I: "#1a1a1a",
  W: "#1a1a1a",
  B: "#1a1a1a",
  R: "#1a1a1a",
};

/** What the kinds are called in legends. */
export const kindNames: Readonly<Record<Kind, string>> = {
  F: "F: forward",
  I: "I: input gradient",
  W: "W: weight gradient",
  B: "B: full backward",
  R: "R: recomputed ahead",
};

/** Colour of sums over replicas, grey: they are no work of the rank's. */
export const sumColour = "#6b6b6b";

/** Colours for anything else that comes in series. */
export const seriesColours: readonly string[] = [
  "#0072b2",
  "#d55e00",
  "#4db592",
  "#e39bc4",
  "#56b4e9",
  "#f0c24b",
  "#5a5a5a",
];

/** Colours of schedules on maps, under dark text: relatives are near each other. */
export const scheduleColours: Readonly<Record<string, string>> = {
  gpipe: "#c9c9c9",
  "1f1b": "#8fbfe0",
  "interleaved-1f1b": "#f0c24b",
  hanayo: "#f7dfa0",
  "1f1b-v": "#b8d4a8",
  "zb-h1": "#e3b7d0",
  "zb-h2": "#cf86b4",
  "zb-v": "#5fbf9f",
  "v-half": "#8fd6be",
  "v-min": "#c8ebdf",
  "dualpipe-v": "#ee9a63",
};

/** Colours of what memory is for: grey what stays, colours what 2BP moves; neighbours differ in lightness. */
export const memoryColours: Readonly<Record<Category, string>> = {
  parameters: "#595959",
  gradients: "#787878",
  optimizer: "#979797",
  transfer: "#3d3d3d",
  activations: "#7fb8d8",
  derivatives: "#f7dfa0",
  workspace: "#d55e00",
};

/** A plotly figure as data: what `Plotly.newPlot` takes. */
export interface Figure {
  /** Traces. */
  data: Record<string, unknown>[];
  /** Layout; `houseLayout()` fills in what it leaves open. */
  layout?: Record<string, unknown>;
}

/** The layout of a figure in the house style; what the figure says itself wins. */
export function houseLayout(layout: Record<string, unknown> = {}): Record<string, unknown> {
  const axis = {
    automargin: true,
    gridcolor: "#e4e4e4",
    zerolinecolor: "#b0b0b0",
    linecolor: "#808080",
    ticks: "outside",
  };
  const axes: Record<string, unknown> = { xaxis: {}, yaxis: {}, ...layout };
  for (const [key, value] of Object.entries(axes)) {
    if (/^[xy]axis\d*$/.test(key)) axes[key] = { ...axis, ...value as object };
  }
  if (layout.title) axes.title = { x: 0.01, y: 1, yanchor: "top", pad: { t: 14 }, font: { size: 15 }, ...layout.title };
  return {
    font: { family: "Inter, Helvetica, Arial, sans-serif", size: 13, color: "#1a1a1a" },
    paper_bgcolor: "#ffffff",
    plot_bgcolor: "#ffffff",
    colorway: seriesColours,
    // Title and legend stand above one another.
    margin: { l: 70, r: 30, t: layout.title ? 72 : 40, b: 50 },
    hoverlabel: { align: "left" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    ...axes,
  };
}
