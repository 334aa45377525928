/** A run of the models of the 2BP paper as tables, sentences and sections of a page. */
import { formatBytes } from "../bytes.ts";
import type { PaperModelReport, PaperReport, PaperScalingRow } from "../measure/paper/report.ts";
import type { SizeChoice, SizeTrial } from "../measure/paper/size.ts";
import type { ThroughputReport } from "../measure/throughput_report.ts";
import { ablationSections } from "./ablation.ts";
import { certaintyNotes, rangeText } from "./certainty.ts";
import type { Section, Table } from "./html.ts";
import { barNotes, barText } from "./prediction_errors.ts";
import { paperGainFigure, paperMemoryFigure, paperScalingFigure } from "./paper_figures.ts";
import { skippedNote } from "./throughput.ts";
import { howOf } from "./variant.ts";

/** One line on what was run on what. */
export function paperTitle({ paper, model, mode, devices, adapter, precision }: PaperModelReport): string {
  const { name, parameters } = model;
  const size = name === paper ? "the paper's size" : `of the shape of ${paper}`;
  return `${name} (${count(Number(parameters))} parameters, ${size}) on ${devices} ${mode} devices, ${adapter}; ` +
    `${precision} precision`;
}

/**
 * Throughput and gain of each schedule, twice: an epoch after one warm-up step and no repeats, as the paper measures; and medians of
 * interleaved pairs, with their quartiles, what is predicted, and the factors of the gain.
 */
export function paperTimesTable({ throughput = [], epochs = [] }: PaperModelReport): Table {
  return {
    columns: [
      "schedule",
      "micro-batches",
      "epoch: samples/s",
      "epoch: with 2BP",
      "epoch: gain",
      "pairs: samples/s",
      "pairs: with 2BP",
      "pairs: gain",
      "quartiles",
      "95 % interval",
      "pairs",
      "predicted",
      "= bubble",
      "x batching",
      "x rest",
      "epoch / pairs",
    ],
    rows: throughput.flatMap(({ rows, gains, samples }) =>
      gains.map((gain) => {
        const [without, split] = [false, true].map((twoStage) =>
          rows.find((row) => row.schedule === gain.schedule && row.twoStage === twoStage)!
        );
        const [slow, fast] = [false, true].map((twoStage) =>
          epochs.find((epoch) => epoch.schedule === gain.schedule && epoch.twoStage === twoStage)?.samplesPerSecond ??
            NaN
        );
        return [
          gain.schedule,
          `${without.microbatches} of ${samples}`,
          rate(slow),
          rate(fast),
          number(fast / slow),
          rate(without.samplesPerSecond),
          rate(split.samplesPerSecond),
          number(gain.gain),
          rangeText(gain.spread),
          rangeText(gain.interval),
          gain.pairs,
          barText(gain.predicted, gain.predictedWithin),
          number(gain.bubbleGain),
          number(gain.batchingGain),
          number(gain.rest),
          number(fast / slow / gain.gain),
        ];
      })
    ),
    notes: [
      ...certaintyNotes(throughput.flatMap(({ gains }) => gains.map((gain) => ({ ...gain, name: gain.schedule })))),
      ...barNotes(throughput.flatMap(({ gains }) => gains)),
    ],
  };
}

/** The highest peak over ranks of each schedule, predicted and measured, beside that of the paper's own size, predicted. */
export function paperMemoryTable({ peaks = [], paperPeaks = [], paper }: PaperModelReport): Table {
  const rows = peaks.length > 0 ? peaks : paperPeaks;
  const without = (all: typeof rows, schedule: string) => all.find((row) => row.schedule === schedule && !row.twoStage);
  return {
    columns: [
      "schedule",
      "2BP",
      "measured MiB",
      "predicted MiB",
      "off",
      "rank",
      "over without",
      `${paper}: predicted GiB`,
      "its rank",
      "its over without",
    ],
    rows: rows.map((row) => {
      const own = peaks.find((each) => isSame(each, row)), full = paperPeaks.find((each) => isSame(each, row));
      const highest = (each?: typeof row) => each && Math.max(...each.measured ?? each.predicted);
      const rank = (each?: typeof row) => each ? (each.measured ?? each.predicted).indexOf(highest(each)!) : "-";
      const predicted = own && Math.max(...own.predicted), measured = own?.measured && Math.max(...own.measured);
      return [
        row.schedule,
        howOf(row),
        mebibytes(measured),
        mebibytes(predicted),
        measured ? `${(100 * (predicted! / measured - 1)).toFixed(1)} %` : "-",
        rank(own),
        number((highest(own) ?? NaN) / (highest(without(peaks, row.schedule)) ?? NaN)),
        full ? (highest(full)! / 2 ** 30).toFixed(1) : "-",
        rank(full),
        number((highest(full) ?? NaN) / (highest(without(paperPeaks, row.schedule)) ?? NaN)),
      ];
    }),
  };
}

const isSame = (a: { schedule: string; policy?: string }, b: { schedule: string; policy?: string }) =>
  a.schedule === b.schedule && a.policy === b.policy;

/** The gain of each schedule by number of ranks, beside the closed form. */
export function paperScalingTable({ scaling = [] }: PaperModelReport): Table {
  return {
    columns: ["ranks", "mode", "schedule", "samples", "gain", "quartiles", "pairs", "predicted", "closed form"],
    rows: scaling.map(({
      devices,
      mode,
      schedule,
      samples,
      gain,
      spread,
      pairs,
      predicted = NaN,
      predictedWithin,
      closedForm,
    }) => [
      devices,
      mode,
      schedule,
      samples,
      number(gain),
      spread ? spread.map(number).join(" - ") : "-",
      pairs ?? "-",
      barText(predicted, predictedWithin),
      number(closedForm?.gain),
    ]),
    notes: barNotes(scaling.map(({ predicted = NaN, predictedWithin }) => ({ predicted, predictedWithin }))),
  };
}

/** Which size was taken, and why not the next larger one, a sentence each. */
export function paperSizeNotes({ size, paper, precision, paperPrecision }: PaperModelReport): string[] {
  const notes: string[] = [];
  if (size) {
    const taken = size.tried.find(({ model }) => model === size.model)!;
    const instead = taken.model === paper ? "" : `, instead of ${paper}`;
    const room = size.bytes === undefined ? "" : ` of ${formatBytes(size.bytes)}`;
    notes.push(
      `Size: ${taken.model}${instead}. It takes ${formatBytes(taken.bytes)} (predicted)${room}, and ${
        duration(taken.ms!)
      } of ${duration(taken.leftMs)} for the fewest steps, at the ${
        gigaflops(taken.rate!)
      } that it reached in a trial.` +
        (taken.reason === "time" ? " That is too long, but there is no smaller one." : ""),
      ...size.tried.filter(({ reason, model }) => reason && model !== size.model).map((trial) => refusal(trial, size)),
    );
  }
  if (precision !== paperPrecision) notes.push(`The device has no f16: f32 in place of ${paperPrecision} precision.`);
  return notes;
}

function refusal({ model, bytes, rate, ms, trialMs, leftMs, reason, message }: SizeTrial, size: SizeChoice): string {
  const left = `${duration(leftMs)} were left`;
  if (reason === "memory") {
    return `Not ${model}: it takes ${formatBytes(bytes)} (predicted), there are ${formatBytes(size.bytes!)}.`;
  }
  if (reason === "device") return `Not ${model}: the device failed, ${message!.replace(/\.$/, "")}.`;
  if (rate === undefined) {
    return `Not ${model}: at the rate of the size below a trial would take ${
      duration(trialMs!)
    }, and the fewest steps ${duration(ms!)}; ${left}.`;
  }
  return `Not ${model}: the fewest steps would take ${duration(ms!)} at the ${
    gigaflops(rate)
  } that it reached; ${left}.`;
}

/** What else there is to say, a sentence each. */
export function paperNotes(report: PaperModelReport): string[] {
  const { throughput, epochs, scaling, peaks, paperPeaks } = report;
  const notes = paperSizeNotes(report);
  if (throughput) {
    notes.push(
      "Samples of a step are the paper's, cut into the schedule's micro-batches, at least one in each; a remainder is left out.",
      ...epochs
        ? [
          `Epoch, as the paper measures: samples of ${steps(epochs[0].steps)} over their ${
            report.mode === "virtual" ? "composed" : "wall-clock"
          } time, after one step that does not count, schedule after schedule, without repeats.`,
        ]
        : [],
      "Pairs: interleaved steps without and with 2BP; medians, and the quartiles of their ratios. Predicted: simulated on the " +
        "measured device times of F, I, W and B.",
      timesNote(throughput),
      ...skippedNote([...throughput, ...epochs ?? []].reduce((sum, { skipped = 0 }) => sum + skipped, 0)),
    );
  }
  if (peaks || paperPeaks) {
    notes.push(
      "Memory: the highest peak over ranks, each rank with a device of its own. That of the paper's own size is predicted from " +
        "shapes, for GPUs.",
    );
  }
  if (scaling) notes.push(...scalingNotes(scaling));
  return notes;
}

/** What step times are made of, of all reports together. */
function timesNote(reports: readonly ThroughputReport[]): string {
  const [{ mode }] = reports;
  if (mode === "real") {
    const shares = reports.map(({ unexplained }) => unexplained);
    if (shares.some(Number.isNaN)) return "The devices have no timestamps: gains are measured but not explained.";
    const most = shares.reduce((most, share) => Math.abs(share) > Math.abs(most) ? share : most);
    return `Step time that the actions' own device times do not explain: up to ${(100 * most).toFixed(1)} %.`;
  }
  const host = Math.max(...reports.map(({ overheads }) => overheads!.hostMsPerAction));
  const message = Math.max(...reports.flatMap(({ overheads }) => [0, ...overheads!.messageMs]));
  return "Virtual: every action was really computed, one at a time on one device; step times are composed of their device " +
    `times, up to ${host.toFixed(2)} ms of host for each, and up to ${
      message.toFixed(2)
    } ms for a message, both measured ` +
    "here. Real devices may slow each other besides.";
}

function scalingNotes(rows: readonly PaperScalingRow[]): string[] {
  const words = {
    layers: "the model has too few layers for so many ranks",
    memory: "memory is too short",
    time: "time is too short",
  };
  const simulated = rows.filter(({ reason }, at) => reason && rows[at - 1]?.devices !== rows[at].devices);
  return [
    "Closed form: F, I and W of equal cost, free messages.",
    ...simulated.map(({ devices, reason }) =>
      `${devices} ranks are simulated, since ${
        words[reason!]
      }: measured costs of fewer ranks, spread evenly, free messages. How far that may be off is not known.`
    ),
  ];
}

/** What is cited, and from where. */
export const paperCitation: string =
  "The paper, 2BP: 2-Stage Backpropagation (arXiv 2405.18047), says in its abstract that 2BP raised the throughput of its " +
  "LLaMa-like transformer 1.70-fold on four GPUs. Sizes, samples and order of the weight gradients here are as read in public " +
  "code of the same models, schedules and modes, whose owner could not be established.";

/** The run as sections of a page. */
export function paperSections({ models }: PaperReport): Section[] {
  const timed = models.filter(({ throughput }) => throughput), held = models.filter(({ peaks }) => peaks);
  return [
    {
      heading: "Gain of 2BP",
      text: [paperCitation, ...models.map(paperTitle)].join("\n\n"),
      ...timed.length > 0 ? { figure: paperGainFigure(timed) } : {},
    },
    ...held.length > 0 ? [{ heading: "Memory of 2BP", figure: paperMemoryFigure(held) }] : [],
    ...models.flatMap((model) => modelSections(model)),
  ];
}

function modelSections(report: PaperModelReport): Section[] {
  const { throughput, peaks, paperPeaks, scaling, ablation } = report;
  const name = String(report.model.name);
  return [
    {
      heading: name,
      text: [paperTitle(report), ...paperNotes(report)].join("\n\n"),
      ...throughput ? { table: paperTimesTable(report) } : {},
    },
    ...peaks || paperPeaks ? [{ heading: `${name}: memory`, table: paperMemoryTable(report) }] : [],
    ...scaling
      ? [{ heading: `${name}: ranks`, figure: paperScalingFigure(report), table: paperScalingTable(report) }]
      : [],
    ...(ablation ?? []).flatMap((each) =>
      ablationSections(each).map(({ heading, ...rest }) => ({
        heading: `${name}, ${each.schedule}: ${heading}`,
        ...rest,
      }))
    ),
  ];
}

const number = (value = NaN) => Number.isNaN(value) ? "-" : value.toFixed(3);
const steps = (count: number) => count === 1 ? "one step" : `${count} steps`;
const rate = (value: number) => Number.isNaN(value) ? "-" : value.toPrecision(4);
const mebibytes = (bytes = NaN) => Number.isNaN(bytes) ? "-" : (bytes / 2 ** 20).toFixed(1);
const gigaflops = (rate: number) => `${(rate / 1e9).toPrecision(3)} GFLOP/s`;
const count = (parameters: number) =>
  parameters < 1e9 ? `${(parameters / 1e6).toFixed(1)} M` : `${(parameters / 1e9).toFixed(2)} G`;

function duration(ms: number): string {
  if (ms < 100_000) return `${(ms / 1000).toPrecision(3)} s`;
  return ms < 6e6 ? `${(ms / 60_000).toFixed(0)} minutes` : `${(ms / 3.6e6).toPrecision(3)} hours`;
}
