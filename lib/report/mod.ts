/**
 * What people see: tables, drawings of schedules and of steps as they ran, traces, pages, and their display in notebooks.
 *
 * Figures are plotly's JSON; {@link show} draws one in a notebook, {@link saveFigure} writes it as SVG, PDF or PNG without a browser,
 * {@link saveTable} a table as CSV, Markdown or LaTeX, {@link writePage} puts figures and tables on a page of its own.
 *
 * ```ts
 * import { generate, simulate, twoStage } from "twobp/schedules";
 * import { ganttFigure, ganttText, writePage } from "twobp/report";
 *
 * const schedule = twoStage(generate("1f1b-1", { devices: 4 }));
 * console.log(ganttText(schedule, simulate(schedule)));
 * writePage("plan.html", "A plan", [{ heading: "1F1B-1 with 2BP", figure: ganttFigure(schedule, simulate(schedule)) }]);
 * ```
 *
 * @module
 */
export {
  ablationFigure,
  ablationNotes,
  ablationPredictionTable,
  ablationSections,
  ablationTable,
  ablationTitle,
  stallTable,
} from "./ablation.ts";
export { agreementIntervals, agreementNotes, agreementSections, agreementTable, agreementTitle } from "./agreement.ts";
export { atlasFigure, type AtlasFigureOptions, atlasSections, atlasTable, atlasWinsTable } from "./atlas.ts";
export { certaintyNotes, type MeasuredRatio, rangeText } from "./certainty.ts";
export { diagnosisText } from "./diagnosis.ts";
export { type Bundle, display, type DisplayOptions } from "./display.ts";
export {
  accountTable,
  comparisonTable,
  criticalTable,
  explainedTimelines,
  explanationSections,
  explanationText,
  explanationTitle,
  explanationTrace,
  gainsTable,
  typicalStep,
  verdictText,
  waitsTable,
} from "./explanation.ts";
export { accountFigure, alternativeName, gainsFigure } from "./explanation_figures.ts";
export type { FigureOptions } from "./drawing.ts";
export { ganttFigure, type GanttOptions } from "./gantt.ts";
export { ganttText, type GanttTextOptions } from "./gantt_text.ts";
export { gradientTable, keptTable } from "./gradients.ts";
export { page, type Section, type Table, writePage } from "./html.ts";
export { kernelsNotes, kernelsSections, kernelsTable, kernelsTitle } from "./kernels.ts";
export { type LiveFigure, liveFigure } from "./live.ts";
export { memoryFigure, memoryOverTime, type MemoryOverTimeOptions, memorySections, memoryTable } from "./memory.ts";
export {
  paperCitation,
  paperMemoryTable,
  paperNotes,
  paperScalingTable,
  paperSections,
  paperTimesTable,
  paperTitle,
} from "./paper.ts";
export { paperGainFigure, paperMemoryFigure, paperScalingFigure } from "./paper_figures.ts";
export { partitionTable } from "./partition.ts";
export { gaveUp, planTable } from "./plan.ts";
export { figurePdf } from "./pdf.ts";
export { figurePng, type PngOptions } from "./png.ts";
export { barNotes, barText, keptText, predictionErrorsTable, predictionSummaryTable } from "./prediction_errors.ts";
export { messageTable, profileSections, profileTable, profileTitle, rankTable } from "./profile.ts";
export { progress, type ProgressLine } from "./progress.ts";
export { runTimeline } from "./run_timeline.ts";
export {
  scalingFigure,
  scalingGainTable,
  scalingNotes,
  scalingSections,
  scalingTable,
  scalingTitle,
} from "./scaling.ts";
export { saveFigure, saveTable } from "./save.ts";
export { show } from "./show.ts";
export { type ColumnTable, type Rows, table } from "./show_table.ts";
export type { Figure } from "./style.ts";
export { figureSvg } from "./svg.ts";
export { tableText } from "./table.ts";
export { tableCsv, tableLatex, tableMarkdown, type TableOptions } from "./table_forms.ts";
export {
  gainTable,
  modeNote,
  soFarTable,
  throughputFigure,
  throughputNotes,
  throughputSections,
  throughputTable,
  throughputTitle,
} from "./throughput.ts";
export type { Timeline } from "./timeline.ts";
export { chromeTrace, chromeTraces, type ComparedStep, type TraceOptions } from "./trace.ts";
export { joinedNote, variantOf } from "./variant.ts";
