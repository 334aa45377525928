/** What `bench training` has found, as tables and figures. */
import type { Figure, Section, Table } from "twobp/report";
import { seriesColours } from "../lib/report/style.ts";

/** A number of each of the two trainings. */
export interface Both<T = number> {
  readonly without: T;
  readonly with: T;
}

/** Two trainings of the same batches, without and with 2BP. Losses and entropies are nats a token. */
export interface TrainingComparison {
  /** Version of this form. */
  readonly schema: 1;
  readonly mode: string;
  readonly devices: number;
  readonly adapter: string;
  readonly model: Readonly<Record<string, string | number>>;
  readonly schedule: string;
  readonly policy?: string;
  readonly microbatches: number;
  /** In a micro-batch. */
  readonly samples: number;
  readonly steps: number;
  readonly seed: number;
  readonly settings: Readonly<Record<string, string | number>>;
  readonly data: string;
  /** Of one update, and pairs of tokens of each part of the text. */
  readonly tokens: { readonly ofAnUpdate: number; readonly train: number; readonly heldOut: number };
  readonly bigrams: {
    /** H(next | current) of the whole text, what is held out included. */
    readonly entropy: number;
    /** A smoothed table of the pairs that are trained on, on all that is held out. */
    readonly heldOut: number;
    /** The same on what evaluations between updates look at. */
    readonly heldOutBetween: number;
  };
  /** After the last update with 2BP, on all that is held out. */
  readonly heldOut: number;
  readonly same: {
    /** Updates whose losses have the same bits. */
    readonly equalBits: number;
    /** Largest relative difference of the losses of an update. */
    readonly largest: number;
    /** The first update, from 0, whose losses differ by more, by the bound; none where all are within. */
    readonly firstBeyond: Readonly<Record<string, number | undefined>>;
  };
  /** Time of an update without 2BP over that with it, in turns. */
  readonly gain: {
    readonly median: number;
    readonly quartiles: readonly [number, number];
    /** Of the median, 95 %; of 6 pairs or more. */
    readonly interval?: readonly [number, number];
    readonly pairs: number;
  };
  readonly evaluations: readonly ({ readonly step: number } & Both)[];
  /** What the model with 2BP makes in the end. */
  readonly texts: readonly string[];
  readonly losses: Both<readonly number[]>;
  readonly ms: Both<readonly number[]>;
}

const bits = (nats: number) => (nats / Math.LN2).toFixed(3);
const nats = (loss: number) => `${loss.toFixed(4)} nats, ${bits(loss)} bits`;

/** One line on what was trained on what. */
export function trainingComparisonTitle(report: TrainingComparison): string {
  const { model, schedule, policy, microbatches, samples, mode, devices, adapter, data } = report;
  return `${model.name} (${
    (Number(model.parameters) / 1e6).toFixed(1)
  } M parameters), ${schedule} without and with 2BP` +
    `${policy ? ` (${policy})` : ""}, on ${devices} ${mode} devices (${adapter}); ${microbatches} micro-batches of ` +
    `${samples} x ${model.length} tokens; ${data}`;
}

/** What the losses have come to, how far they are the same, and the gain. */
export function trainingComparisonTable(report: TrainingComparison): Table {
  const { bigrams, heldOut, evaluations, same, gain, steps, tokens } = report;
  const below = (bar: number) => {
    const found = evaluations.find((each) => each.with < bar);
    return found ? `after ${found.step} updates` : "never";
  };
  const [low, high] = gain.quartiles;
  return {
    columns: ["what", "value"],
    rows: [
      ["tokens trained on", String(steps * tokens.ofAnUpdate)],
      ["tokens of the text, held out", `${tokens.train}, ${tokens.heldOut}`],
      ["H(next | current) of the whole text", nats(bigrams.entropy)],
      ["smoothed bigrams of what is trained on, on what is held out", nats(bigrams.heldOut)],
      ["loss on what is held out, in the end", nats(heldOut)],
      ["below H(next | current)", below(bigrams.entropy)],
      ["below smoothed bigrams", below(bigrams.heldOutBetween)],
      ["updates whose losses have the same bits", `${same.equalBits} of ${steps}`],
      ["largest relative difference", same.largest.toExponential(1)],
      ...Object.entries(same.firstBeyond).map(([bound, at]) => [
        `first difference above ${bound}`,
        at === undefined ? "never" : `in update ${at + 1}`,
      ]),
      ["gain of 2BP", `${gain.median.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)}), ${gain.pairs} pairs`],
    ],
  };
}

/** The curve with 2BP beside what pairs of tokens know. */
export function learningFigure({ evaluations, losses, bigrams, steps }: TrainingComparison): Figure {
  const line = (name: string, at: number, colour: string) => ({
    ...{ type: "scatter", mode: "lines", name, x: [1, steps], y: [at, at] },
    line: { color: colour, width: 1.5, dash: "dash" },
  });
  return {
    data: [
      {
        ...{
          type: "scatter",
          mode: "lines",
          name: "each update",
          x: losses.with.map((_, at) => at + 1),
          y: losses.with,
        },
        line: { color: "#a9c6dc", width: 1 },
      },
      {
        ...{ type: "scatter", mode: "lines+markers", name: "held out" },
        ...{ x: evaluations.map(({ step }) => step), y: evaluations.map((each) => each.with) },
        ...{ line: { color: seriesColours[0], width: 2 }, marker: { color: seriesColours[0], size: 6 } },
      },
      line("H(next | current)", bigrams.entropy, seriesColours[1]),
      line("smoothed bigrams, held out", bigrams.heldOut, seriesColours[2]),
    ],
    layout: {
      title: { text: "Loss with 2BP" },
      height: 440,
      xaxis: { title: { text: "updates" } },
      yaxis: { title: { text: "nats a token" } },
    },
  };
}

/** How far the two curves are apart, update by update; where they are equal there is no point. */
export function differenceFigure({ losses }: TrainingComparison): Figure {
  const points = losses.with
    .map((loss, at) => [at + 1, Math.abs(loss - losses.without[at]) / Math.abs(losses.without[at])])
    .filter(([, difference]) => difference > 0);
  return {
    data: [{
      ...{ type: "scatter", mode: "markers", name: "difference" },
      ...{ x: points.map(([at]) => at), y: points.map(([, difference]) => difference) },
      marker: { color: seriesColours[0], size: 4 },
    }],
    layout: {
      title: { text: "Losses without and with 2BP" },
      height: 320,
      xaxis: { title: { text: "updates" } },
      yaxis: { title: { text: "relative difference" }, type: "log" },
      showlegend: false,
    },
  };
}

/** All of it, for a page. */
export function trainingComparisonSections(report: TrainingComparison): Section[] {
  return [
    {
      ...{ heading: "Loss", text: trainingComparisonTitle(report), figure: learningFigure(report) },
      table: trainingComparisonTable(report),
    },
    ...report.same.largest === 0
      ? []
      : [{ heading: "Difference", name: "difference", figure: differenceFigure(report) }],
    {
      heading: "Evaluations",
      table: {
        columns: ["updates", "held out, with 2BP", "without"],
        rows: report.evaluations.map((each) => [each.step, each.with.toFixed(4), each.without.toFixed(4)]),
      },
    },
    { heading: "Texts", text: report.texts.join("\n\n") },
  ];
}
