/** A run of the models of the 2BP paper as figures. */
import type { PaperModelReport } from "../measure/paper/report.ts";
import { closedForm } from "../measure/scaling.ts";
import { type Figure, seriesColours } from "./style.ts";

/** The gain of each schedule of each model: as the paper measures, as interleaved pairs with their quartiles, and predicted. */
export function paperGainFigure(models: readonly PaperModelReport[]): Figure {
  const bars = models.flatMap(({ model, throughput = [], epochs = [] }) =>
    throughput.flatMap(({ gains }) =>
      gains.map((gain) => {
        const [slow, fast] = [false, true].map((twoStage) =>
          epochs.find((epoch) => epoch.schedule === gain.schedule && epoch.twoStage === twoStage)?.samplesPerSecond
        );
        return { model: short(model), ...gain, epoch: slow && fast ? fast / slow : null };
      })
    )
  );
  const x = [bars.map(({ model }) => model), bars.map(({ schedule }) => schedule)];
  const modes = modesOf(models);
  return {
    data: [
      {
        type: "bar",
        name: "epoch, as the paper measures",
        x,
        y: bars.map(({ epoch }) => epoch),
        marker: { color: seriesColours[4] },
      },
      {
        type: "bar",
        name: "interleaved pairs (median, quartiles)",
        x,
        y: bars.map(({ gain }) => gain),
        marker: { color: seriesColours[0] },
        error_y: {
          type: "data",
          symmetric: false,
          array: bars.map(({ gain, spread }) => spread[1] - gain),
          arrayminus: bars.map(({ gain, spread }) => gain - spread[0]),
          color: "#1a1a1a",
          thickness: 1,
        },
      },
      {
        type: "scatter",
        mode: "markers",
        name: "predicted",
        x,
        y: bars.map(({ predicted }) => Number.isNaN(predicted) ? null : predicted),
        error_y: { type: "data", array: bars.map(({ predictedWithin = 0 }) => predictedWithin), thickness: 1 },
        marker: { color: "#1a1a1a", symbol: "line-ew-open", size: 16, line: { width: 2 } },
      },
    ],
    layout: {
      title: { text: `Gain of 2BP, ${modes}` },
      barmode: "group",
      height: 480,
      yaxis: { title: { text: "step time without over with 2BP" }, rangemode: "tozero" },
      shapes: [{
        type: "line",
        xref: "paper",
        x0: 0,
        x1: 1,
        y0: 1,
        y1: 1,
        line: { color: "#808080", width: 1, dash: "dot" },
      }],
    },
  };
}

/** The highest peak over ranks with each policy, over that without 2BP, schedule by schedule. */
export function paperMemoryFigure(models: readonly PaperModelReport[]): Figure {
  const groups = models.flatMap(({ model, peaks = [] }) =>
    peaks.filter(({ twoStage }) => !twoStage).map((base) => ({ model: short(model), base, peaks }))
  );
  const policies = [...new Set(models.flatMap(({ peaks = [] }) => peaks.flatMap(({ policy }) => policy ?? [])))];
  const x = [groups.map(({ model }) => model), groups.map(({ base }) => base.schedule)];
  const highest = ({ measured, predicted }: (typeof groups)[0]["base"]) => Math.max(...measured ?? predicted);
  return {
    data: policies.map((policy, at) => ({
      type: "bar",
      name: policy,
      x,
      y: groups.map(({ base, peaks }) => {
        const split = peaks.find((row) => row.schedule === base.schedule && row.policy === policy);
        return split ? highest(split) / highest(base) : null;
      }),
      marker: { color: seriesColours[at % seriesColours.length] },
    })),
    layout: {
      title: { text: `Highest peak over ranks, over that without 2BP, measured on ${modesOf(models)}` },
      barmode: "group",
      height: 440,
      yaxis: { title: { text: "peak with 2BP over without" }, rangemode: "tozero" },
    },
  };
}

/** Gain against the number of ranks; measured filled, virtual open, simulated crossed, closed form dashed. */
export function paperScalingFigure({ scaling = [], model }: PaperModelReport): Figure {
  const counts = [...new Set(scaling.map(({ devices }) => devices))];
  const schedules = [...new Set(scaling.map(({ schedule }) => schedule))];
  const symbols = { real: "circle", virtual: "circle-open", simulated: "x-thin-open" };
  return {
    data: schedules.flatMap((schedule, at) => {
      const rows = scaling.filter((row) => row.schedule === schedule);
      const color = seriesColours[at % seriesColours.length];
      return [
        {
          type: "scatter",
          mode: "lines+markers",
          name: schedule,
          x: rows.map(({ devices }) => devices),
          y: rows.map(({ gain }) => Number.isNaN(gain) ? null : gain),
          text: rows.map(({ mode }) => mode),
          marker: { color, size: 10, symbol: rows.map(({ mode }) => symbols[mode]), line: { width: 2 } },
          line: { color, width: 2 },
          error_y: {
            type: "data",
            symmetric: false,
            array: rows.map(({ gain, spread }) => spread ? spread[1] - gain : 0),
            arrayminus: rows.map(({ gain, spread }) => spread ? gain - spread[0] : 0),
            thickness: 1,
          },
        },
        ...closedForm(schedule, counts[0])
          ? [{
            type: "scatter",
            mode: "lines",
            name: `${schedule}, closed form`,
            x: counts,
            y: counts.map((devices) => closedForm(schedule, devices)!.gain),
            line: { color, width: 1, dash: "dash" },
          }]
          : [],
      ];
    }),
    layout: {
      title: { text: `${model.name}: gain by number of ranks (filled: real, open: virtual, crossed: simulated)` },
      height: 460,
      margin: { t: 92 }, // two rows of legend
      xaxis: { type: "log", tickvals: counts, ticktext: counts.map(String), title: { text: "ranks" } },
      yaxis: { title: { text: "gain of 2BP" } },
    },
  };
}

const short = ({ name }: PaperModelReport["model"]) => String(name).replace(/^paper-/, "");

/** What the models were run on: "4 virtual devices". */
function modesOf(models: readonly PaperModelReport[]): string {
  return [...new Set(models.map(({ devices, mode }) => `${devices} ${mode} devices`))].join(", ");
}
