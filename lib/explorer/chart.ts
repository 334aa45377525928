/** Draws a schedule: a row of bars for each rank, the critical path, the axis of time. */
import { labelOf, laterStageOpacity } from "../report/gantt.ts";
import { kindColours, kindTextColours } from "../report/style.ts";
import { formatAction } from "../schedules/schedule.ts";
import { drawn } from "./dom.ts";
import type { Bar, Part } from "./outcome.ts";
import { barHeight, gutter, margin, rowHeight, rowsHeight, type Scale } from "./scale.ts";
import { ticksOf } from "./view.ts";
import { time, whyOf } from "./why.ts";

/** Pixels under the rows for the axis of time. */
export const axisHeight = 38;
/** Pixels that a sign takes. */
const signWidth = 7.5;
const dark = kindTextColours.W;

/** The bars, their rows and the axis; `tabbed` is the bar that the tabulator key comes to. */
export function drawRows(
  part: Part,
  scale: Scale,
  tabbed: { rank: number; index: number },
  unit = "units",
): SVGElement[] {
  const { schedule: { placement, actions } } = part, { x, y, view, width } = scale;
  const ranks = actions.length, bottom = rowsHeight(ranks);
  const firstOf = actions.map((_, rank) => placement.indexOf(rank));
  const rows = actions.map((_, rank) => [
    drawn("rect", {
      class: "row",
      x: gutter,
      y: y(rank) - 1,
      width: width - gutter - margin,
      height: barHeight + 2,
      rx: 3,
    }),
    drawn("text", { class: "rank", x: gutter - 8, y: y(rank) + barHeight / 2 }, `rank ${rank}`),
  ]).flat();
  const bars = part.bars.flatMap((row) =>
    row.filter(({ start, end }) => end >= view.from && start <= view.to).map((bar) =>
      drawBar(bar, scale, bar.action.stage !== firstOf[bar.rank], isAt(bar, tabbed))
    )
  );
  const ticks = ticksOf(view, Math.max(2, Math.floor((width - gutter) / 56))).flatMap((at) => [
    drawn("line", { class: "tick", x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4 }),
    drawn("text", { class: "tick", x: x(at), y: bottom + 16 }, time(at)),
  ]);
  const axis = [
    drawn("line", { class: "axis", x1: gutter, x2: width - margin, y1: bottom, y2: bottom }),
    ...ticks,
    drawn("text", { class: "unit", x: (gutter + width - margin) / 2, y: bottom + 31 }, `time (${unit})`),
  ];
  return [
    ...rows,
    drawn("g", { "clip-path": scale.clip }, ...bars, ...criticalLine(part, scale), ...hanging(part, scale)),
    ...axis,
  ];
}

const isAt = (bar: Bar, place: { rank: number; index: number }) => bar.rank === place.rank && bar.index === place.index;

function drawBar(bar: Bar, { x, y, width }: Scale, later: boolean, tabbed: boolean): SVGElement {
  const { rank, index, action, start, end, state, critical } = bar;
  const left = x(start), wide = Math.max(x(end) - left, 0.5), gap = wide > 6 ? 0.5 : 0;
  // What is to be seen of it: its text stands there.
  const from = Math.max(left, gutter), seen = Math.min(left + wide, width - margin) - from;
  const place = {
    x: left + gap,
    y: y(rank),
    width: Math.max(wide - 2 * gap, 0.5),
    height: barHeight,
    rx: wide > 6 ? 2 : 0,
  };
  const full = formatAction(action), short = labelOf(action);
  const text = seen > signWidth * full.length + 8 ? full : seen > signWidth * short.length + 2 ? short : "";
  return drawn(
    "g",
    {
      class: ["bar", state, critical ? "critical" : "", wide < 7 ? "thin" : ""].filter(Boolean).join(" "),
      "data-rank": rank,
      "data-index": index,
      tabindex: tabbed ? 0 : -1,
      role: "button",
      "aria-label": `${full} of rank ${rank}, ${state === "runs" ? `${time(start)} to ${time(end)}` : "never starts"}`,
    },
    drawn("rect", { class: "under", ...place }),
    drawn("rect", {
      class: "fill",
      ...place,
      fill: kindColours[action.kind],
      "fill-opacity": later ? laterStageOpacity : 1,
    }),
    ...text
      ? [drawn("text", {
        x: from + seen / 2,
        y: y(rank) + barHeight / 2,
        style: `fill: ${later ? dark : kindTextColours[action.kind]}`,
      }, text)]
      : [],
  );
}

/** From bar to bar of the critical path, which are outlined, the way from rank to rank: between their rows. */
function criticalLine({ bars }: Part, { x, y }: Scale): SVGElement[] {
  const path = bars.flat().filter(({ critical }) => critical).sort((a, b) => a.start - b.start || a.end - b.end);
  return path.slice(1).flatMap((to, index) => {
    const from = path[index];
    if (from.rank === to.rank) return [];
    const [lower, upper] = [barHeight, 0], isDown = to.rank > from.rank;
    return [drawn("line", {
      class: "critical-path",
      x1: x(from.end),
      y1: y(from.rank) + (isDown ? lower : upper),
      x2: x(to.start),
      y2: y(to.rank) + (isDown ? upper : lower),
    })];
  });
}

/** What an action waited for: the gap before it, its cause outlined, and an arrow from there. */
export function drawCause(part: Part, bar: Bar, { x, y }: Scale): SVGElement[] {
  const { cause } = whyOf(part, bar), outline = outlined("chosen", bar, x, y);
  const before = bar.index > 0 ? part.bars[bar.rank][bar.index - 1].end : 0;
  const gap = bar.state === "runs" && bar.start > before
    ? [
      drawn("rect", { class: "gap", x: x(before), y: y(bar.rank), width: x(bar.start) - x(before), height: barHeight }),
    ]
    : [];
  if (!cause) return [...gap, outline];
  const from = part.bars[cause.rank][cause.index];
  const isNeighbour = cause.rank === bar.rank && Math.abs(x(from.end) - x(bar.start)) < 2;
  return [...gap, outlined("cause", from, x, y), ...isNeighbour ? [] : arrow(from, bar, { x, y }), outline];
}

/** Where ranks hang, an arrow to each such action from what it waits for, between the rows: a deadlock is a ring of them. */
function hanging(part: Part, { x, y }: Scale): SVGElement[] {
  return part.bars.flat().filter(({ state }) => state === "stuck").flatMap((bar) => {
    const { cause } = whyOf(part, bar);
    if (!cause || cause.rank === bar.rank) return [];
    const from = part.bars[cause.rank][cause.index], isBelow = from.rank > bar.rank;
    const [x1, x2] = [from, bar].map(({ start, end }) => x((start + end) / 2));
    const y1 = y(from.rank) + (isBelow ? 0 : barHeight), y2 = y(bar.rank) + (isBelow ? barHeight : 0);
    return [
      drawn("line", { class: "waits", x1, y1, x2, y2 }),
      drawn("path", { class: "waits", d: `M${x2},${y2} l-5,${isBelow ? 8 : -8} h10 z` }),
    ];
  });
}

function arrow(from: Bar, to: Bar, { x, y }: Pick<Scale, "x" | "y">): SVGElement[] {
  const [x1, x2] = [x(from.end), x(to.start)];
  const [y1, y2] = [from, to].map(({ rank }) => y(rank) + barHeight / 2);
  const bend = Math.min(Math.max(10, Math.abs(x2 - x1) / 2), 60);
  return [
    drawn("path", { class: "arrow", d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2 - 3},${y2}` }),
    drawn("path", { class: "head", d: `M${x2},${y2} l-8,-4.5 v9 z` }),
  ];
}

function outlined(name: string, { rank, start, end }: Bar, x: Scale["x"], y: Scale["y"]): SVGElement {
  return drawn("rect", {
    class: name,
    x: x(start),
    y: y(rank) - 1,
    width: Math.max(x(end) - x(start), 2),
    height: barHeight + 2,
    rx: 2,
  });
}

/** Where an action would come that is dragged: a line before the place. */
export function drawDrop(part: Part, rank: number, from: number, to: number, { x, y }: Scale): SVGElement {
  const others = part.bars[rank].filter((_, index) => index !== from);
  const at = to < others.length ? others[to].start : others[others.length - 1]?.end ?? 0;
  return drawn("line", {
    class: "drop",
    x1: x(at),
    x2: x(at),
    y1: y(rank) - (rowHeight - barHeight) / 2,
    y2: y(rank) + barHeight + (rowHeight - barHeight) / 2,
  });
}
