/** An ablation as tables, as a figure, and in words. */
import type { AblationReport, AblationRung } from "../measure/ablation/measure.ts";
import type { RungName } from "../measure/ablation/ladder.ts";
import type { Section, Table } from "./html.ts";
import { barNotes, barText } from "./prediction_errors.ts";
import { type Figure, seriesColours } from "./style.ts";

/** What each rung adds, in a few words. */
const added: Readonly<Record<RungName, string>> = {
  "bubble": "bubble alone",
  "concatenation": "+ concatenated W",
  "per-sample products": "+ products per sample",
  "stored scores": "+ stored scores",
  "stall": "+ stall without 2BP",
};

/** Why a rung may be missing. */
const missing: Readonly<Record<RungName, string>> = {
  "bubble": "",
  "concatenation": "the paper's order has no W of several micro-batches here",
  "per-sample products": "the model has no dense layer",
  "stored scores": "the model has no attention that could be fused on this device",
  "stall": "",
};

/** One line on what was run on what. */
export function ablationTitle(report: AblationReport): string {
  const { model, devices, mode, adapter, schedule, microbatches, samples, precision } = report;
  return `${model.name}, ${schedule} with ${microbatches} micro-batches of ${samples} samples on ${devices} ${mode} devices, ` +
    `${adapter}; ${precision} precision`;
}

/** The rungs: step times, gain, and the factor of what each adds, measured and predicted. */
export function ablationTable({ rungs }: AblationReport): Table {
  return {
    columns: [
      "rung",
      "ms without 2BP",
      "ms with",
      "gain",
      "quartiles",
      "predicted",
      "factor",
      "quartiles",
      "predicted",
      "steps longer by",
    ],
    rows: rungs.map((
      { name, stepMs: [without, split], gain, predicted, predictedWithin, factor, predictedFactor },
      at,
    ) => [
      added[name],
      without.median.toFixed(1),
      split.median.toFixed(1),
      gain.median.toFixed(3),
      range(gain.quartiles),
      barText(predicted, predictedWithin),
      factor.median.toFixed(3),
      range(factor.quartiles),
      number(predictedFactor),
      at > 0 ? longer(rungs[at]) : "-",
    ]),
    notes: barNotes(rungs),
  };
}

/** By how much a rung makes the steps of the one below longer, without and with 2BP: a gain can grow because everything got slower. */
function longer({ slower }: AblationRung): string {
  return slower.map(({ median }) => `${median < 1 ? "" : "+"}${(100 * (median - 1)).toFixed(0)} %`).join(" / ");
}

/** The rungs' gains and factors as predicted for several numbers of ranks, and what stall would give the published gain. */
export function ablationPredictionTable({ predictions, stall, published }: AblationReport): Table {
  const names = predictions[0]?.rungs.map(({ name }) => name) ?? [];
  return {
    columns: [
      "ranks",
      "stages",
      ...names.map((name) => name === "stall" ? `${added[name]}, ${stall.ms.toFixed(2)} ms` : added[name]),
      "= gain",
      `stall for ${published.gain.toFixed(2)}`,
      "of a B",
    ],
    rows: predictions.map(({ devices, measuredStages, rungs, needed }) => [
      devices,
      measuredStages ? "measured" : "inner repeated",
      ...rungs.map(({ factor }) => factor.toFixed(3)),
      rungs[rungs.length - 1].gain.toFixed(3),
      `${needed.ms.toFixed(2)} ms`,
      percent(needed.share),
    ]),
  };
}

/** What a stall of the last rank makes of the gain of the rung below it, by its length in shares of a B; simulated. */
export function stallTable({ predictions }: AblationReport): Table {
  const shares = predictions[0]?.stalls.map(({ share }) => share) ?? [];
  return {
    columns: ["ranks", ...shares.map((share) => `${percent(share)} of a B`)],
    rows: predictions.map(({ devices, stalls }) => [devices, ...stalls.map(({ gain }) => gain.toFixed(3))]),
  };
}

/** What is known, what is ours, what is open: a sentence or two each. */
export function ablationNotes(report: AblationReport): string[] {
  const { mode, devices, repeats, schedule, rungs, absent, stall, published, equalCosts, remains, predictions } =
    report;
  const top = rungs[rungs.length - 1];
  const product = rungs.map(({ factor }) => factor.median.toFixed(3)).join(" x ");
  const same = devices === published.devices;
  const [own] = predictions;
  return [
    `Known: the 2BP paper (arXiv 2405.18047) reports ${published.gain.toFixed(2)}x for a transformer on ` +
    `${published.devices} GPUs. As read in public code of the same models, schedules and modes, whose owner could not be ` +
    "established: weight gradients of dense layers are a product for each sample and a sum, and attention keeps its scores, both " +
    "without 2BP and with it; without 2BP, and for the transformer only, the last rank empties the allocator's cache after each " +
    "backward, before it sends. Whether the paper's figure was measured so is not known.",
    `With F, I and W of equal cost the bubble of ${schedule} alone would give ${
      equalCosts.toFixed(3)
    } on ${devices} ranks${
      same ? `, and leave a factor of ${(published.gain / equalCosts).toFixed(3)}` : ""
    } (simulated).`,
    `Ours, measured (${mode} devices, ${repeats} rounds in which all rungs take turns): ${product} = ${
      top.gain.median.toFixed(3)
    }. Each rung has what those below it have. A gain is a quotient: a rung whose steps both take longer makes nothing faster, ` +
    "whatever it does to the gain.",
    `Beside ${published.gain.toFixed(2)}: ${
      remains > 1
        ? `a factor of ${remains.toFixed(3)} is left over`
        : `nothing is left over, the product is larger by ${(1 / remains).toFixed(3)}`
    }${same ? "" : `, on ${devices} ranks and not ${published.devices}`}. The stall of ${stall.ms.toFixed(2)} ms` +
    `${
      Number.isNaN(stall.share) ? "" : ` (${percent(stall.share)} of a backward of rank ${stall.rank})`
    } is a length that was ` +
    "given, not one that an allocator was seen to take.",
    ...(own
      ? [
        `Ours, simulated on the device times measured here: on ${own.devices} ranks the rungs below the stall would come to ${
          published.gain.toFixed(2)
        } with one of ${own.needed.ms.toFixed(2)} ms, ${
          percent(own.needed.share)
        } of a backward. For other numbers of ranks ` +
        "every stage is like an inner one that was measured, and a W of a width that was not measured costs what its " +
        "neighbours say, so how far that may be off is not known.",
      ]
      : ["The device has no timestamps: factors are measured and not predicted."]),
    ...(mode === "virtual"
      ? [
        "Virtual: step times are composed of device times, the host's share and messages; the stall is added to the backwards of its rank.",
      ]
      : []),
    ...absent.map((name) => `No rung "${added[name]}": ${missing[name]}.`),
    "Open: how long the allocator's pause is on the paper's GPUs, how the same products and attention compare there, and whether its " +
    "baseline had that pause. Scratch of products per sample is f32 here, and half as large there.",
  ];
}

/** The factors of the rungs, each bar from the gain below to its own, on a log axis; the published gain as a line. */
export function ablationFigure(report: AblationReport): Figure {
  const { rungs, published, devices, mode, schedule } = report;
  const labels = rungs.map(({ name, factor }) => `${added[name]}<br>x ${factor.median.toFixed(3)}`);
  const below = rungs.map((_, at) => at > 0 ? rungs[at - 1].gain.median : 1);
  const lowest = Math.min(1, ...rungs.map(({ gain }) => gain.quartiles[0]));
  const highest = Math.max(published.gain, ...rungs.map(({ gain }) => gain.quartiles[1]));
  return {
    data: [
      {
        type: "bar",
        name: "factor, measured",
        x: labels,
        base: below,
        y: rungs.map(({ gain }, at) => gain.median - below[at]),
        marker: { color: rungs.map((_, at) => seriesColours[at % seriesColours.length]) },
        showlegend: false,
      },
      {
        type: "scatter",
        mode: "markers",
        name: "gain, measured (quartiles)",
        x: labels,
        y: rungs.map(({ gain }) => gain.median),
        error_y: {
          type: "data",
          symmetric: false,
          array: rungs.map(({ gain }) => gain.quartiles[1] - gain.median),
          arrayminus: rungs.map(({ gain }) => gain.median - gain.quartiles[0]),
          thickness: 1,
        },
        marker: { color: "#1a1a1a", size: 7 },
      },
      {
        type: "scatter",
        mode: "markers",
        name: "gain, simulated on measured costs",
        x: labels,
        y: rungs.map(({ predicted }) => Number.isNaN(predicted) ? null : predicted),
        error_y: { type: "data", array: rungs.map(({ predictedWithin = 0 }) => predictedWithin), thickness: 1 },
        marker: { color: "#1a1a1a", size: 9, symbol: "diamond-open" },
      },
      {
        type: "scatter",
        mode: "lines",
        name: `${published.gain.toFixed(2)}, arXiv 2405.18047, ${published.devices} GPUs`,
        x: labels,
        y: labels.map(() => published.gain),
        line: { color: seriesColours[1], width: 1, dash: "dash" },
      },
    ],
    layout: {
      title: { text: `Where the gain of 2BP comes from: ${schedule}, ${devices} ${mode} devices` },
      height: 480,
      margin: { t: 92 },
      xaxis: { title: { text: "what is added, and its factor" } },
      yaxis: {
        type: "log",
        title: { text: "gain" },
        range: [Math.log10(lowest * 0.98), Math.log10(highest * 1.03)],
        tickvals: [0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2, 2.5, 3, 4, 5],
      },
    },
  };
}

/** The run as sections of a page. */
export function ablationSections(report: AblationReport): Section[] {
  return [
    {
      heading: "Where the gain comes from",
      text: [ablationTitle(report), ...ablationNotes(report)].join("\n\n"),
      figure: ablationFigure(report),
      table: ablationTable(report),
    },
    ...(report.predictions.length > 0
      ? [
        {
          heading: "Predicted factors",
          text: "Simulated on the device times that were measured.",
          table: ablationPredictionTable(report),
        },
        { heading: "Predicted gain by the length of the stall", table: stallTable(report) },
      ]
      : []),
  ];
}

const range = ([low, high]: readonly [number, number]) => `${low.toFixed(3)} - ${high.toFixed(3)}`;
const number = (value: number) => Number.isNaN(value) ? "-" : value.toFixed(3);
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
