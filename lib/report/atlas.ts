/** The atlas as tables and as figures: which schedule is fastest where. */
import { atlasCaps, type AtlasEntry, atlasRanking, type AtlasRow } from "../planning/atlas.ts";
import type { Section, Table } from "./html.ts";
import { type Figure, scheduleColours } from "./style.ts";

/** The schedule that is fastest at a point under a cap, and what it gains. */
interface Winner {
  readonly entry: AtlasEntry;
  /** Over plain 1F1B. */
  readonly gain: number;
  /** What the next schedule takes longer, as a share; undefined where there is none. */
  readonly ahead?: number;
  /** That schedule. */
  readonly second?: AtlasEntry;
}

/** The winner at a point under a cap; undefined where no schedule keeps it. */
export function atlasWinner(row: AtlasRow, cap: number): Winner | undefined {
  const [entry, second] = atlasRanking(row, cap);
  if (!entry) return undefined;
  return {
    entry,
    gain: row.plain / entry.makespan,
    ...second && { second, ahead: second.makespan / entry.makespan - 1 },
  };
}

/** What a cap of the atlas is called. */
export function atlasCapName(cap: number): string {
  return cap === Infinity ? "any memory" : cap === 1 ? "1F1B's peak" : `${cap} x 1F1B's peak`;
}

/** A schedule with its policy: `1f1b, 2BP select`. */
export function atlasEntryName({ schedule, policy }: AtlasEntry): string {
  return policy ? `${schedule}, 2BP ${policy}` : schedule;
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

const notes = [
  "Simulated. A rank's F takes 1 and its activations of a micro-batch 1, on however many stages it lies: all schedules have the same work, " +
  "in equal stages. interleaved-1f1b and hanayo have two stages a rank. With 2BP, what is split by itself has its W placed anew. Messages do not slow each other.",
  "Gain: over plain 1F1B without 2BP. Ahead: what the next schedule, with its best policy, takes longer. Peak: the most activations that a " +
  "rank holds, from F until W or B, derivatives not counted.",
];

/** Of each point and cap the winner, its gain and peak, and how far it is ahead. */
export function atlasTable(rows: readonly AtlasRow[]): Table {
  return {
    columns: [
      "devices",
      "micro-batches",
      "W/I",
      "F/I",
      "message",
      "memory",
      "fastest",
      "step",
      "gain",
      "peak",
      "ahead",
      "of",
    ],
    rows: rows.flatMap((row) =>
      atlasCaps.map((cap) => {
        const { devices, microbatches, weight, forward, message } = row, winner = atlasWinner(row, cap);
        const point = [devices, microbatches, weight, forward, message, atlasCapName(cap)];
        if (!winner) return [...point, "none", "-", "-", "-", "-", "-"];
        const { entry, gain, ahead, second } = winner;
        return [
          ...point,
          atlasEntryName(entry),
          entry.makespan,
          gain.toFixed(3),
          entry.peak,
          ahead === undefined ? "-" : percent(ahead),
          second ? atlasEntryName(second) : "-",
        ];
      })
    ),
    notes,
  };
}

/** Of each schedule at how many points it is fastest, alone or level with others, under each cap, and what it gains there. */
export function atlasWinsTable(rows: readonly AtlasRow[]): Table {
  const names = [...new Set(rows.flatMap(({ entries }) => entries.map(({ schedule }) => schedule)))];
  const wins = names.map((name) => ({
    name,
    gains: atlasCaps.map((cap) =>
      rows.flatMap((row) => {
        const [best, ...others] = atlasRanking(row, cap);
        const own = [best, ...others].find((entry) => entry?.schedule === name);
        return own && own.makespan === best.makespan ? [row.plain / own.makespan] : [];
      })
    ),
  }));
  return {
    columns: ["schedule", ...atlasCaps.flatMap((cap) => [`fastest, ${atlasCapName(cap)}`, "its gain there"])],
    rows: wins.filter(({ gains }) => gains.some(({ length }) => length > 0)).map(({ name, gains }) => [
      name,
      ...gains.flatMap((each) => [
        `${each.length} of ${rows.length}`,
        each.length === 0 ? "-" : `${Math.min(...each).toFixed(2)} to ${Math.max(...each).toFixed(2)}`,
      ]),
    ]),
    notes: ["At a point where several are level, each of them counts."],
  };
}

/** What a figure shows of an atlas. */
export interface AtlasFigureOptions {
  /** Most memory, in peaks of plain 1F1B; default 1. */
  readonly cap?: number;
  /** F over I; default 1. */
  readonly forward?: number;
}

/**
 * A map of the fastest schedules: micro-batches to the right, W/I upwards, a column of maps for each number of devices, a row for each
 * cost of a message. The colour is the schedule, the number its gain over plain 1F1B.
 */
export function atlasFigure(rows: readonly AtlasRow[], { cap = 1, forward = 1 }: AtlasFigureOptions = {}): Figure {
  const shown = rows.filter((row) => row.forward === forward);
  const devices = distinct(shown, (row) => row.devices), messages = distinct(shown, (row) => row.message);
  const weights = distinct(shown, (row) => row.weight);
  const gap = 0.03, width = (1 - gap * (devices.length - 1)) / devices.length;
  const tall = 0.11, height = (1 - tall * (messages.length - 1)) / messages.length;
  const layout: Record<string, unknown> = {}, annotations: Record<string, unknown>[] = [];
  const named = new Set<string>();
  const data = messages.flatMap((message, line) =>
    devices.flatMap((count, column) => {
      const at = line * devices.length + column + 1, suffix = at === 1 ? "" : String(at);
      const here = shown.filter((each) => each.devices === count && each.message === message);
      const left = column * (width + gap), top = 1 - line * (height + tall);
      layout[`xaxis${suffix}`] = {
        ...{ domain: [left, left + width], anchor: `y${suffix}`, type: "category", showgrid: false },
        categoryorder: "array",
        categoryarray: distinct(here, (row) => row.microbatches).map(String),
        ...line === messages.length - 1 && { title: { text: "micro-batches" } },
      };
      layout[`yaxis${suffix}`] = {
        ...{ domain: [top - height, top], anchor: `x${suffix}`, range: [0, weights.length] },
        ...{ showgrid: false, zeroline: false, showticklabels: column === 0, ticks: column === 0 ? "outside" : "" },
        tickvals: weights.map((_, index) => index + 0.5),
        ticktext: weights.map(String),
        ...column === 0 && { title: { text: "W / I" } },
      };
      annotations.push({
        text: `${count} devices, message ${message}`,
        ...{ xref: "paper", yref: "paper", x: left + width / 2, y: top, showarrow: false, font: { size: 12 } },
        ...{ xanchor: "center", yanchor: "bottom" },
      });
      const cells = here.flatMap((row) => {
        const winner = atlasWinner(row, cap);
        return winner ? [{ row, ...winner }] : [];
      });
      // Bars, a schedule each: what draws figures without a browser has no canvas, which a heat map takes.
      return Object.keys(scheduleColours).flatMap((name) => {
        const own = cells.filter(({ entry }) => entry.schedule === name);
        if (own.length === 0) return [];
        const isFirst = !named.has(name);
        named.add(name);
        return {
          ...{ type: "bar", name, legendgroup: name, showlegend: isFirst, width: 0.96 },
          ...{ xaxis: `x${suffix}`, yaxis: `y${suffix}` },
          x: own.map(({ row }) => String(row.microbatches)),
          y: own.map(() => 0.94),
          base: own.map(({ row }) => weights.indexOf(row.weight) + 0.03),
          text: own.map(({ gain }) => gain.toFixed(2)),
          ...{ textposition: "inside", insidetextanchor: "middle", textangle: 0, cliponaxis: false },
          textfont: { color: "#1a1a1a", size: 11 },
          hovertext: own.map(winnerText),
          hoverinfo: "text",
          marker: { color: scheduleColours[name] },
        };
      });
    })
  );
  return {
    data,
    layout: {
      ...layout,
      annotations,
      barmode: "overlay",
      title: {
        text: `Fastest schedule within ${atlasCapName(cap)}, F/I ${forward}, and its gain over plain 1F1B (simulated)`,
      },
      height: 150 + 165 * messages.length,
      margin: { l: 70, r: 20, t: 100, b: 50 },
      legend: { orientation: "h", x: 0, y: 1.06, yanchor: "bottom", traceorder: "normal" },
    },
  };
}

function winnerText({ entry, gain, ahead, second }: Winner): string {
  return `${atlasEntryName(entry)}: gain ${gain.toFixed(3)}, peak ${entry.peak}` +
    (second ? `<br>${percent(ahead!)} ahead of ${atlasEntryName(second)}` : "");
}

function distinct(rows: readonly AtlasRow[], pick: (row: AtlasRow) => number): number[] {
  return [...new Set(rows.map(pick))].sort((a, b) => a - b);
}

/** The maps under each cap, and the tables. */
export function atlasSections(rows: readonly AtlasRow[]): Section[] {
  const forwards = [...new Set(rows.map(({ forward }) => forward))];
  return [
    ...atlasCaps.flatMap((cap) =>
      forwards.map((forward) => ({
        heading: `Within ${atlasCapName(cap)}, F/I ${forward}`,
        figure: atlasFigure(rows, { cap, forward }),
      }))
    ),
    { heading: "How often", table: atlasWinsTable(rows) },
    { heading: "Point by point", table: atlasTable(rows) },
  ];
}
