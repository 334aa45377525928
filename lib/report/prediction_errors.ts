/** How far predictions are off: as a bar in a cell, as tables, and in a sentence. */
import type { Gain } from "../measure/gain.ts";
import { keptErrors } from "../measure/kept_errors.ts";
import { errorsOf, type KeptErrors, type PredictedRun, type PredictionErrors } from "../measure/prediction_errors.ts";
import type { Table } from "./html.ts";

/** A prediction and how far it may be off, where that is known: `1.180 +- 0.041`; `-` for NaN. */
export function barText(prediction: number, within: number | undefined, digits = 3): string {
  if (Number.isNaN(prediction)) return "-";
  return `${prediction.toFixed(digits)}${within === undefined ? "" : ` +- ${within.toFixed(digits)}`}`;
}

/** What `+-` behind predictions means, and that nothing is known of those without, a sentence each; nothing where nothing is predicted. */
export function barNotes(gains: readonly Pick<Gain, "predicted" | "predictedWithin">[]): string[] {
  const predicted = gains.filter((each) => !Number.isNaN(each.predicted));
  const notes: string[] = [];
  if (predicted.some(({ predictedWithin }) => predictedWithin !== undefined)) {
    notes.push("+-: 95 of 100 kept predictions of such devices were off by no larger share (bench agreement).");
  }
  if (predicted.some(({ predictedWithin }) => predictedWithin === undefined)) {
    notes.push(`Without +-: how far such a prediction may be off is not known; ${keptText()}.`);
  }
  return notes;
}

/** What the kept errors are of, in a clause. */
export function keptText(): string {
  if (keptErrors.length === 0) return "no errors are kept";
  const kinds = keptErrors.map(({ devices, mode }) => `${devices} ${mode}`);
  const drivers = [...new Set(keptErrors.map(({ driver }) => driver))];
  return `errors are kept of ${kinds.join(", ")} devices of ${drivers.join(", ")}, in f32, one process, one replica`;
}

/** Of each schedule what predictions are off, in percent: the step, the step with 2BP, the gain, by model. */
export function predictionErrorsTable(runs: readonly PredictedRun[]): Table {
  const schedules = [...new Set(runs.flatMap(({ rows }) => rows.map(({ schedule }) => schedule)))];
  return {
    columns: ["schedule", ...runs.map(({ model }) => model)],
    rows: schedules.map((schedule) => [
      schedule,
      ...runs.map(({ rows }) => {
        const row = rows.find((each) => each.schedule === schedule);
        return row ? errorsOf(row).map(signed).join(" / ") : "-";
      }),
    ]),
    notes: [
      "Predicted over measured, less one, in percent: step without 2BP / step with / gain; above 0 too much was predicted.",
    ],
  };
}

/** What predictions are off on each kind of devices, over all schedules and models. */
export function predictionSummaryTable(
  kinds: readonly (PredictionErrors & Pick<KeptErrors, "mode" | "devices">)[],
): Table {
  const names = { step: "step", gain: "gain", counted: "counted, over 1f1b" } as const;
  return {
    columns: ["devices", "prediction", "cases", "median, %", "95 %, %"],
    rows: kinds.flatMap(({ mode, devices, ...errors }) =>
      (["step", "gain", "counted"] as const).flatMap((name) => {
        const summary = errors[name];
        if (!summary) return [];
        const { median, within, cases } = summary;
        return [[`${devices} ${mode}`, names[name], cases, signed(median), (100 * within).toFixed(1)]];
      })
    ),
    notes: [
      "Median of the signed errors; 95 %: the 95 % quantile of the errors without their signs, interpolated. Step and gain: " +
      "simulated with the device times of the same run. Counted: steps from counted work, in those of plain 1f1b.",
    ],
  };
}

const signed = (share: number) => `${share < 0 ? "-" : "+"}${(100 * Math.abs(share)).toFixed(1)}`;
