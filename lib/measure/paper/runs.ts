/**
 * How the models of the 2BP paper (arXiv 2405.18047) were run, as read in public code of the same models, schedules and modes, whose
 * owner could not be established. Micro-batches are those of the schedules (`zoo`), tokens of a sequence and pixels those of the
 * model.
 *
 * @module
 */
import { UserError } from "../../errors.ts";
import type { Precision } from "../../runtime/pipeline.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { quoted } from "../../text.ts";
import { adamw, type OptimizerSpec, sgd } from "../../train/optimizers.ts";

/** A model of the 2BP paper, and how it was run. */
export interface PaperRun {
  /** Its name, see `createModel()`. */
  readonly model: string;
  /** Names of smaller models of the same shape, the largest first; the last is for two processor cores. */
  readonly smaller: readonly string[];
  /** What tensors hold; "mixed" stands for the fp16 of that code. */
  readonly precision: Precision;
  /** The optimizer. Step sizes that were not read are PyTorch's defaults. */
  readonly optimizer: OptimizerSpec;
  /** Whether an ablation takes its gain apart: it is the model of the paper's headline, and of what its code does besides. */
  readonly takenApart?: boolean;
  /** Samples in a step, in all its micro-batches together, for a schedule of the paper on so many ranks. */
  samples(schedule: string, ranks: number): number;
}

/** So many samples, and twice as many for 1F1B-2, which has twice as many micro-batches. */
const usual = (samples: number) => (schedule: string) => schedule === "1f1b-2" ? 2 * samples : samples;

/** Adam: AdamW without decay. */
const adam = (learningRate?: number) => adamw({ learningRate, weightDecay: 0 });

const transformers = ["paper-transformer-half", "paper-transformer-8th", "paper-transformer-tiny"];

/** The models of the 2BP paper as they were run; the transformer twice, by an older script and by a newer one. */
export const paperRuns: readonly PaperRun[] = [
  {
    model: "paper-transformer",
    smaller: ["paper-transformer-16", ...transformers],
    precision: "mixed",
    optimizer: adam(1e-4),
    takenApart: true,
    samples: () => 8, // of every schedule
  },
  {
    model: "paper-transformer-16",
    smaller: transformers,
    precision: "mixed",
    optimizer: adam(1e-4),
    takenApart: true,
    samples: usual(4),
  },
  {
    model: "paper-bert-large",
    smaller: ["paper-bert-large-4th", "paper-bert-large-tiny"],
    precision: "mixed",
    optimizer: adam(),
    samples: usual(8),
  },
  {
    model: "paper-mamba-1.4b",
    smaller: ["paper-mamba-1.4b-half", "paper-mamba-1.4b-8th", "paper-mamba-1.4b-tiny"],
    precision: "mixed",
    optimizer: adamw(),
    samples: usual(8),
  },
  {
    model: "paper-resnet-152",
    smaller: ["paper-resnet-152-4th", "paper-resnet-152-tiny"],
    precision: "f32",
    optimizer: sgd({ learningRate: 1e-3 }),
    samples: (schedule, ranks) => schedule === "naive" ? 32 / ranks : usual(32)(schedule),
  },
];

/**
 * How a model of the 2BP paper was run, or one of the smaller ones of its shape: those of the transformer as in the newer script.
 *
 * @throws {UserError} On any other name.
 */
export function paperRunOf(model: string): PaperRun {
  const run = paperRuns.findLast((each) => each.model === model || each.smaller.includes(model));
  if (run) return run;
  const names = paperRuns.map(({ model }) => model).join(", ");
  throw new UserError(
    `${quoted(String(model))} is no model of the 2BP paper; these are ${names}, and smaller ones of each`,
  );
}

/**
 * Samples in a micro-batch: those of the paper's step, cut into the schedule's micro-batches; one where there are fewer samples
 * than micro-batches, and what is left over is left out.
 */
export function paperSamples({ samples }: PaperRun, schedule: Schedule): number {
  const { devices, microbatches } = sizesOf(schedule);
  return Math.max(1, Math.floor(samples(schedule.name, devices) / microbatches));
}
