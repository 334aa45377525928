/** A training as it went: its curves, and what it was. */
import { formatBytes } from "../bytes.ts";
import type { Section, Table } from "./html.ts";
import { type Figure, seriesColours } from "./style.ts";

/** An update, as metrics have it. */
export interface UpdateRecord {
  readonly kind: "update";
  /** How many updates there have been with it. */
  readonly step: number;
  /** Mean loss of its batches, before it. */
  readonly loss: number;
  /** Of parameters in no group; absent where the update was skipped. */
  readonly learningRate?: number;
  /** Before clipping; absent where the update was skipped. */
  readonly gradientNorm?: number;
  /** Whether gradients overflowed, in mixed precision; absent otherwise. */
  readonly skipped?: true;
  /** Since the update before it, or the start: its steps, the wait for its batches, and for a checkpoint to be read from the devices; not an evaluation. */
  readonly ms: number;
  /** Tokens, or images, trained on in a second of that. */
  readonly perSecond: number;
  /** Arithmetic of the model's passes in that time, as a share of what the devices reach in f32. */
  readonly shareOfPeak: number;
}

/** An evaluation, as metrics have it. */
export interface EvaluationRecord {
  readonly kind: "evaluation";
  /** After how many updates. */
  readonly step: number;
  /** Mean loss of what is held out. */
  readonly loss: number;
  /** Whether it is the best so far. */
  readonly isBest: boolean;
}

/** A training. */
export interface TrainingReport {
  /** Version of this form. */
  readonly schema: 1;
  /** One line on what was trained on what. */
  readonly title: string;
  /** What was asked for, and what it came to, by name. */
  readonly settings: Readonly<Record<string, string | number>>;
  /** What `perSecond` counts. */
  readonly unit: "tokens" | "images";
  /** Why it ended, in a sentence. */
  readonly ended: string;
  /** The most bytes in use at once on each device, in any step. */
  readonly peakBytes: readonly number[];
  /** In their order. */
  readonly updates: readonly UpdateRecord[];
  /** In their order; none where nothing was held out. */
  readonly evaluations: readonly EvaluationRecord[];
}

/** Updates that a curve is smoothed over: so many that noise goes, and so few that the course stays. Short ones are as they are. */
const smoothedOver = (updates: number) => updates < 100 ? 1 : Math.round(updates / 25);

/** The losses of updates, a running mean of them, and those of evaluations. */
export function lossFigure({ updates, evaluations }: TrainingReport): Figure {
  const steps = updates.map(({ step }) => step), losses = updates.map(({ loss }) => loss);
  const width = smoothedOver(updates.length);
  const mean = losses.map((_, at) => {
    const part = losses.slice(Math.max(0, at + 1 - width), at + 1);
    return part.reduce((sum, loss) => sum + loss, 0) / part.length;
  });
  const curve = { type: "scatter", x: steps };
  const smooth = {
    ...{ ...curve, mode: "lines", name: `mean of the last ${width}`, y: mean },
    line: { color: seriesColours[0], width: 2 },
  };
  return {
    data: [
      {
        ...{ ...curve, mode: width > 1 ? "lines" : "lines+markers", name: "each update", y: losses },
        line: { color: width > 1 ? "#a9c6dc" : seriesColours[0], width: 1 },
      },
      ...width > 1 ? [smooth] : [],
      ...evaluations.length === 0 ? [] : [{
        ...{ type: "scatter", mode: "lines+markers", name: "held out" },
        ...{ x: evaluations.map(({ step }) => step), y: evaluations.map(({ loss }) => loss) },
        ...{ line: { color: seriesColours[1], width: 1.5 }, marker: { color: seriesColours[1], size: 7 } },
      }],
    ],
    layout: {
      title: { text: "Loss" },
      height: 440,
      xaxis: { title: { text: "updates" } },
      yaxis: { title: { text: "mean loss of a target" } },
    },
  };
}

/** One value of each update. */
function curveFigure(
  title: string,
  axis: string,
  updates: readonly UpdateRecord[],
  of: (each: UpdateRecord) => number | undefined,
): Figure {
  const shown = updates.filter((each) => of(each) !== undefined);
  return {
    data: [{
      ...{ type: "scatter", mode: shown.length > 50 ? "lines" : "lines+markers", name: title },
      ...{ x: shown.map(({ step }) => step), y: shown.map(of), line: { color: seriesColours[0], width: 1.5 } },
    }],
    layout: {
      title: { text: title },
      height: 300,
      xaxis: { title: { text: "updates" } },
      yaxis: { title: { text: axis }, rangemode: "tozero" },
      showlegend: false,
    },
  };
}

/** What it was, and what came of it. */
function summaryTable({ settings, updates, evaluations, peakBytes, unit }: TrainingReport): Table {
  const last = updates[updates.length - 1];
  const best = evaluations.reduce<EvaluationRecord | undefined>(
    (least, each) => least && least.loss <= each.loss ? least : each,
    undefined,
  );
  const rates = updates.map(({ perSecond }) => perSecond).sort((a, b) => a - b);
  const shares = updates.map(({ shareOfPeak }) => shareOfPeak).sort((a, b) => a - b);
  const middle = Math.floor(updates.length / 2);
  const results: [string, string | number][] = last
    ? [
      ["loss of the first update", updates[0].loss.toFixed(4)],
      ["loss of the last update", last.loss.toFixed(4)],
      ...best ? [["best held-out loss", `${best.loss.toFixed(4)} after ${best.step} updates`] as [string, string]] : [],
      [`${unit} a second, median`, rateText(rates[middle])],
      ["share of the devices' f32 peak, median", `${(100 * shares[middle]).toFixed(1)} %`],
      ["most memory in use, by rank", peakBytes.map(formatBytes).join(", ")],
      ...updates.some(({ skipped }) => skipped)
        ? [["skipped, gradients overflowed", updates.filter(({ skipped }) => skipped).length] as [string, number]]
        : [],
    ]
    : [];
  const rows = [...Object.entries(settings), ...results].map(([name, value]) => [name, String(value)]);
  return { columns: ["what", "value"], rows };
}

/** A number of tokens or images a second, for people. */
export const rateText = (perSecond: number): string => perSecond.toFixed(perSecond < 100 ? 1 : 0);

/** The training as sections of a page. */
export function trainingSections(report: TrainingReport): Section[] {
  const { updates, evaluations, unit } = report;
  const curve = (name: string, title: string, axis: string, of: (each: UpdateRecord) => number | undefined) => ({
    ...{ heading: title, name, figure: curveFigure(title, axis, updates, of) },
  });
  return [
    {
      ...{ heading: "Loss", text: `${report.title}\n\n${report.ended}` },
      ...updates.length === 0 ? {} : { figure: lossFigure(report) },
      table: summaryTable(report),
    },
    ...updates.length === 0 ? [] : [
      curve("learning-rate", "Learning rate", "learning rate", ({ learningRate }) => learningRate),
      curve("gradient-norm", "Norm of the gradients, before clipping", "norm", ({ gradientNorm }) => gradientNorm),
      curve("speed", `Speed`, `${unit} a second`, ({ perSecond }) => perSecond),
    ],
    ...evaluations.length === 0 ? [] : [{
      heading: "Evaluations",
      table: {
        columns: ["updates", "held-out loss", "best so far"],
        rows: evaluations.map(({ step, loss, isBest }) => [step, loss.toFixed(4), isBest ? "yes" : ""]),
      },
    }],
  ];
}
