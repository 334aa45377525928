/** A scaling run as tables and as a figure. */
import { closedForm, type ScalingGain, type ScalingReport, type ScalingRow } from "../measure/scaling.ts";
import { certaintyNotes, rangeText } from "./certainty.ts";
import type { Section, Table } from "./html.ts";
import { barNotes, barText } from "./prediction_errors.ts";
import { type Figure, seriesColours } from "./style.ts";
import { apartNote, joinedNote } from "./variant.ts";

/** One line on what was run on what. */
export function scalingTitle({ adapter, model, samples }: ScalingReport): string {
  const { name, parameters, length } = model;
  const size = length ? `${samples} x ${length} tokens` : `${samples} images`;
  return `${name} (${(Number(parameters) / 1e6).toFixed(1)} M parameters) on ${adapter}; micro-batches of ${size}`;
}

/** Throughput and bubble of each schedule by number of ranks, without and with 2BP, beside the closed forms. */
export function scalingTable(report: ScalingReport): Table {
  return {
    columns: [
      "ranks",
      "mode",
      "schedule",
      "samples/s",
      "with 2BP",
      "a rank",
      "a rank, 2BP",
      "bubble",
      "closed form",
      "bubble, 2BP",
      "closed form, 2BP",
    ],
    rows: report.gains.map((gain) => {
      const [without, split] = rowsOf(report, gain);
      return [
        gain.devices,
        gain.mode,
        gain.schedule,
        without.samplesPerSecond.toFixed(1),
        split.samplesPerSecond.toFixed(1),
        (without.samplesPerSecond / gain.devices).toFixed(2),
        (split.samplesPerSecond / gain.devices).toFixed(2),
        percent(without.bubbleRatio),
        percent(gain.closedForm?.without),
        percent(split.bubbleRatio),
        percent(gain.closedForm?.with),
      ];
    }),
  };
}

/** The gain of each schedule by number of ranks: measured, predicted from measured costs, and in closed form. */
export function scalingGainTable({ gains }: ScalingReport): Table {
  return {
    columns: ["ranks", "mode", "schedule", "gain", "quartiles", "95 % interval", "pairs", "predicted", "closed form"],
    rows: gains.map((gain) => [
      gain.devices,
      gain.mode,
      gain.schedule,
      gain.gain.toFixed(3),
      rangeText(gain.spread),
      rangeText(gain.interval),
      gain.pairs,
      barText(gain.predicted, gain.predictedWithin),
      number(gain.closedForm?.gain),
    ]),
    notes: [
      ...certaintyNotes(
        gains.map((gain) => ({ ...gain, name: `${gain.schedule} on ${gain.devices} ${gain.mode} devices` })),
      ),
      ...barNotes(gains),
    ],
  };
}

/** What else there is to say, a sentence each. */
export function scalingNotes({ rows, runs }: ScalingReport): string[] {
  const notes = [
    "Gain: step time without 2BP over step time with, median of interleaved pairs. Predicted: simulated on the measured device " +
    "times of F, I, W and B. Closed form: F, I and W of equal cost, free messages.",
    ...joinedNote(rows),
  ];
  for (const { devices, mode, unexplained, overheads, apart } of runs) {
    if (mode === "real") {
      notes.push(
        `${devices} real devices at once: ${percent(unexplained)} of the step time is not explained by device times.`,
      );
    } else if (overheads) {
      const message = Math.max(0, ...overheads.messageMs);
      notes.push(
        `${devices} virtual devices: all actions computed, one at a time on one device, and their times composed, with ` +
          `${overheads.hostMsPerAction.toFixed(2)} ms of host for each and ${message.toFixed(2)} ms for a message.`,
      );
    }
    if (apart) notes.push(`${devices} ranks: ${apartNote(apart)}`);
  }
  return notes;
}

/** Gain, and throughput of a rank, against the number of ranks; real runs filled, virtual ones open, theory dashed. */
export function scalingFigure(report: ScalingReport): Figure {
  const counts = [...new Set(report.gains.map(({ devices }) => devices))];
  const schedules = [...new Set(report.gains.map(({ schedule }) => schedule))];
  const colour = (schedule: string) => seriesColours[schedules.indexOf(schedule) % seriesColours.length];
  const data: Record<string, unknown>[] = schedules.flatMap((schedule) => {
    const gains = report.gains.filter((gain) => gain.schedule === schedule);
    const symbol = symbols[schedules.indexOf(schedule) % symbols.length];
    const common = { x: gains.map(({ devices }) => devices), legendgroup: schedule, mode: "lines+markers" };
    const marker = {
      color: colour(schedule),
      size: 9,
      symbol: gains.map(({ mode }) => `${symbol}${mode === "real" ? "" : "-open"}`),
    };
    const text = gains.map(({ mode }) => mode);
    const perDevice = (twoStage: boolean) => ({
      ...common,
      type: "scatter",
      name: `${schedule}${twoStage ? " with 2BP" : ""}, a rank`,
      y: gains.map((gain) => rowsOf(report, gain)[twoStage ? 1 : 0].samplesPerSecond / gain.devices),
      text,
      marker,
      line: { color: colour(schedule), width: twoStage ? 2 : 1, dash: twoStage ? "solid" : "dot" },
      showlegend: false,
      xaxis: "x2",
      yaxis: "y2",
    });
    return [
      {
        ...common,
        type: "scatter",
        name: schedule,
        y: gains.map(({ gain }) => gain),
        text,
        marker,
        line: { color: colour(schedule), width: 2 },
        error_y: {
          type: "data",
          symmetric: false,
          array: gains.map(({ gain, spread }) => spread[1] - gain),
          arrayminus: gains.map(({ gain, spread }) => gain - spread[0]),
          thickness: 1,
        },
      },
      ...(closedForm(schedule, counts[0])
        ? [{
          type: "scatter",
          mode: "lines",
          name: `${schedule}, closed form`,
          legendgroup: schedule,
          x: counts,
          y: counts.map((devices) => closedForm(schedule, devices)!.gain),
          line: { color: colour(schedule), width: 1, dash: "dash" },
        }]
        : []),
      perDevice(false),
      perDevice(true),
    ];
  });
  const devices = { type: "log", tickvals: counts, ticktext: counts.map(String), title: { text: "ranks" } };
  return {
    data,
    layout: {
      title: {
        text: "2BP by number of ranks (filled: real, open: virtual; dashed: closed form; dotted: without 2BP)",
      },
      height: 520,
      margin: { t: 92 }, // two rows of legend
      xaxis: { ...devices, domain: [0, 0.46] },
      yaxis: { title: { text: "gain" } },
      xaxis2: { ...devices, domain: [0.56, 1], anchor: "y2" },
      yaxis2: {
        title: { text: "samples per second and rank" },
        anchor: "x2",
        rangemode: "tozero",
      },
    },
  };
}

/** The run as sections of a page. */
export function scalingSections(report: ScalingReport): Section[] {
  return [
    {
      heading: "Scaling",
      text: scalingTitle(report),
      figure: scalingFigure(report),
      table: scalingTable(report),
    },
    { heading: "Gain of 2BP", text: scalingNotes(report).join("\n\n"), table: scalingGainTable(report) },
  ];
}

/** One a schedule, so that they hold in grey print. */
const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon"];

/** The rows that a gain compares. */
function rowsOf({ rows }: ScalingReport, { schedule, devices }: ScalingGain): [ScalingRow, ScalingRow] {
  const of = (twoStage: boolean) =>
    rows.find((row) => row.schedule === schedule && row.devices === devices && row.twoStage === twoStage)!;
  return [of(false), of(true)];
}

const number = (value = NaN) => Number.isNaN(value) ? "-" : value.toFixed(3);
const percent = (share = NaN) => Number.isNaN(share) ? "-" : `${(100 * share).toFixed(1)} %`;
