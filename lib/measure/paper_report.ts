/** What a run of the models of the 2BP paper gives. */
import type { PaperModelReport } from "./paper.ts";
import type { PaperPeaks } from "./paper_cases.ts";
import type { PaperScalingRow } from "./paper_scaling.ts";

/** What was measured and predicted of one model of the paper. */
export interface PaperModelResult extends PaperModelReport {
  /** Peaks of the paper's own size, predicted for GPUs. */
  readonly paperPeaks?: readonly PaperPeaks[];
  /** Gains by number of ranks. */
  readonly scaling?: readonly PaperScalingRow[];
}

/** A run of several models. */
export interface PaperReport {
  /** Version of this form. */
  readonly schema: 1;
  /** One for each model of the paper. */
  readonly models: readonly PaperModelResult[];
}
