/** A throughput run as tables and as a figure. */
import type { Gain } from "../measure/gain.ts";
import type { ThroughputReport, ThroughputRow } from "../measure/throughput_report.ts";
import { certaintyNotes, rangeText } from "./certainty.ts";
import type { Section, Table } from "./html.ts";
import { barNotes, barText } from "./prediction_errors.ts";
import { type Figure, seriesColours } from "./style.ts";
import { apartNote, howOf, joinedNote } from "./variant.ts";

/** One line on what was run on what. */
export function throughputTitle(report: ThroughputReport): string {
  const { mode, devices, replicas, adapter, library, model, samples, precision, rows } = report;
  const { name, parameters, length } = model;
  const [{ recompute }] = rows, { sums } = rows[1];
  const size = length ? `${samples} x ${length} tokens` : `${samples} images`;
  return `${name} (${millions(Number(parameters))} parameters) on ${devices} ${mode} devices${
    replicas === undefined ? "" : `, ${replicas} replicas`
  }, ${adapter}${library === undefined ? "" : `, a process each or several, ${library}`}; ` +
    `micro-batches of ${size}${precision === "f32" ? "" : `; ${precision} precision`}${
      recompute === "none" ? "" : `; recomputed: ${recompute}`
    }${sums === "i" ? "" : `; sums in ${sums.toUpperCase()}`}`;
}

/** Step times, throughput, bubble and memory of each schedule. */
export function throughputTable({ rows }: ThroughputReport): Table {
  return {
    columns: ["schedule", "2BP", "micro-batches", "step ms", "min - max", "samples/s", "bubble", "peak MiB"],
    rows: rows.map((row) => [
      row.schedule,
      howOf(row),
      row.microbatches,
      row.stepMs.median.toFixed(1),
      `${row.stepMs.min.toFixed(1)} - ${row.stepMs.max.toFixed(1)}`,
      row.samplesPerSecond.toFixed(1),
      percent(row.bubbleRatio),
      row.peakBytes.map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(" / "),
    ]),
  };
}

/** The same in short, of a run that goes on. */
export function soFarTable({ rows, gains }: ThroughputReport): Table {
  const step = (schedule: string, twoStage: boolean) =>
    rows.find((row) => row.schedule === schedule && row.twoStage === twoStage)!.stepMs.median.toFixed(1);
  return {
    columns: ["schedule", "step ms", "with 2BP", "gain"],
    rows: gains.map(({ schedule, gain }) => [schedule, step(schedule, false), step(schedule, true), gain.toFixed(3)]),
  };
}

/** What 2BP gains on each schedule, how sure that is, and where the gain comes from. */
export function gainTable({ gains }: ThroughputReport): Table {
  return {
    columns: [
      "schedule",
      "gain",
      "quartiles",
      "95 % interval",
      "pairs",
      "predicted",
      "of predicted",
      "= bubble",
      "x batching",
      "x rest",
    ],
    rows: gains.map((gain) => [
      gain.schedule,
      gain.gain.toFixed(3),
      rangeText(gain.spread),
      rangeText(gain.interval),
      gain.pairs,
      barText(gain.predicted, gain.predictedWithin),
      number(gain.gain / gain.predicted),
      number(gain.bubbleGain),
      number(gain.batchingGain),
      number(gain.rest),
    ]),
    notes: [...certaintyNotes(gains.map((gain) => ({ ...gain, name: gain.schedule }))), ...barNotes(gains)],
  };
}

/** What else there is to say, a sentence each. */
export function throughputNotes(report: ThroughputReport): string[] {
  const { loss, rows, gains, apart, skipped, within } = report;
  return [
    "Gain: step time without 2BP over step time with, median of interleaved pairs. Predicted: simulated on the measured " +
    "device times of F, I, W and B.",
    ...joinedNote(rows),
    modeNote(report),
    ...replicasNote(report),
    ...(within === undefined ? [] : [withinNote(gains, within)]),
    ...(apart ? [apartNote(apart)] : []),
    ...skippedNote(skipped),
    `Loss ${loss.first.toFixed(3)} in the first round, ${loss.last.toFixed(3)} in the last.`,
  ];
}

/** What replicas add to a step, in a sentence, where there are several. */
function replicasNote({ replicas, costs }: ThroughputReport): string[] {
  if (replicas === undefined) return [];
  const sums = Object.values(costs).flatMap((each) => each.sums?.sum ?? []).filter((time) => time > 0);
  const longest = sums.length > 0 ? `, and the sum of a stage's gradients takes up to ${ms(Math.max(...sums))}` : "";
  return [`${replicas} replicas share each batch: samples/s are those of all${longest}.`];
}

/** Whether gains are known as well as was asked for, in a sentence. */
function withinNote(gains: readonly Gain[], within: number): string {
  const share = `${Number((100 * within).toPrecision(3))} %`;
  const wide = gains.filter(({ gain, interval }) => !interval || (interval[1] - interval[0]) / 2 > within * gain);
  const until = `Measured until the 95 % interval of each gain reaches no further than ${share} to either side`;
  if (wide.length === 0) return `${until}.`;
  return `${until}: with these pairs not reached for ${wide.map(({ schedule }) => schedule).join(", ")}; ` +
    "give more --repeats, or a quiet machine.";
}

/** What so many steps did not do, if there are any. */
export function skippedNote(skipped = 0): string[] {
  if (skipped === 0) return [];
  return [
    `Gradients overflowed in ${skipped} of the counted steps, which therefore lack their update: see the loss scale.`,
  ];
}

/** What step times of real or virtual devices are made of, in a sentence. */
export function modeNote({ mode, unexplained, overheads }: ThroughputReport): string {
  if (mode === "virtual") {
    const { hostMsPerAction, messageMs, measured } = overheads!;
    return "Virtual: every action was really computed, one at a time on one device; step times are composed from their " +
      `device times, ${ms(hostMsPerAction)} of host for each, and ${ms(Math.max(0, ...messageMs))} for a message (${
        measured ? "both measured here" : "the latter given"
      }). Real devices may slow each other besides.`;
  }
  return Number.isNaN(unexplained)
    ? "The device has no timestamps: gains are measured but not explained."
    : `Step time that the actions' own device times do not explain: ${percent(unexplained)}.`;
}

/** Throughput with and without 2BP, schedule by schedule, with the gain written below. */
export function throughputFigure(report: ThroughputReport): Figure {
  const { rows, gains, mode } = report;
  const schedules = gains.map(({ schedule }) => schedule);
  const labels = gains.map(({ schedule, gain }) => `${schedule}<br>gain ${gain.toFixed(2)}`);
  const bars = (twoStage: boolean, name: string, color: string) => {
    const chosen = schedules.map((schedule) =>
      rows.find((row) => row.schedule === schedule && row.twoStage === twoStage)!
    );
    const rate = (ms: number, { samplesPerSecond, stepMs }: ThroughputRow) => samplesPerSecond * stepMs.median / ms;
    return {
      type: "bar",
      name,
      x: labels,
      y: chosen.map((row) => row.samplesPerSecond),
      marker: { color },
      // At the foot of the bar, where no whisker ends.
      text: chosen.map((row) => row.samplesPerSecond.toFixed(1)),
      textposition: "inside",
      insidetextanchor: "start",
      error_y: {
        type: "data",
        symmetric: false,
        array: chosen.map((row) => rate(row.stepMs.min, row) - row.samplesPerSecond),
        arrayminus: chosen.map((row) => row.samplesPerSecond - rate(row.stepMs.max, row)),
        color: "#1a1a1a",
        thickness: 1,
      },
    };
  };
  return {
    data: [bars(false, "without 2BP", seriesColours[0]), bars(true, "with 2BP", seriesColours[5])],
    layout: {
      title: { text: `Throughput, ${report.devices} ${mode} devices (median; whiskers: slowest and fastest step)` },
      barmode: "group",
      height: 460,
      xaxis: { title: { text: "schedule" } },
      yaxis: { title: { text: "samples per second" }, rangemode: "tozero" },
    },
  };
}

/** The run as sections of a page. */
export function throughputSections(report: ThroughputReport): Section[] {
  return [
    {
      heading: "Throughput",
      text: throughputTitle(report),
      figure: throughputFigure(report),
      table: throughputTable(report),
    },
    { heading: "Gain of 2BP", text: throughputNotes(report).join("\n\n"), table: gainTable(report) },
  ];
}

const ms = (value: number) => `${value.toFixed(2)} ms`;
const number = (value: number) => Number.isNaN(value) ? "-" : value.toFixed(3);
const percent = (share: number) => Number.isNaN(share) ? "-" : `${(100 * share).toFixed(1)} %`;
const millions = (count: number) => `${(count / 1e6).toFixed(1)} M`;
