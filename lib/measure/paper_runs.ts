/**
 * How the models of the 2BP paper (arXiv 2405.18047) were run, as read in public code of the same models, schedules and modes, whose
 * owner could not be established. Micro-batches are those of the schedules (`zoo`), tokens of a sequence and pixels those of the
 * model.
 *
 * @module
 */
import type { Precision } from "../runtime/pipeline.ts";
import { adamw, type OptimizerSpec, sgd } from "../train/optimizers.ts";

/** A model of the 2BP paper, and how it was run. */
export interface PaperRun {
  /** Its name, see `createModel()`. */
  readonly model: string;
  /** Name of a model of the same shape that two processor cores train. */
  readonly twin: string;
  /** What tensors hold; "mixed" stands for the fp16 of that code. */
  readonly precision: Precision;
  /** The optimizer. Step sizes that were not read are PyTorch's defaults. */
  readonly optimizer: OptimizerSpec;
  /** Samples in a step, in all its micro-batches together, for a schedule of the paper on so many ranks. */
  samples(schedule: string, ranks: number): number;
}

/** So many samples, and twice as many for 1F1B-2, which has twice as many micro-batches. */
const usual = (samples: number) => (schedule: string) => schedule === "1f1b-2" ? 2 * samples : samples;

/** Adam: AdamW without decay. */
const adam = (learningRate?: number) => adamw({ learningRate, weightDecay: 0 });

/** The models of the 2BP paper as they were run; the transformer twice, by an older script and by a newer one. */
export const paperRuns: readonly PaperRun[] = [
  {
    model: "paper-transformer",
    twin: "paper-transformer-tiny",
    precision: "mixed",
    optimizer: adam(1e-4),
    samples: () => 8, // of every schedule
  },
  {
    model: "paper-transformer-16",
    twin: "paper-transformer-tiny",
    precision: "mixed",
    optimizer: adam(1e-4),
    samples: usual(4),
  },
  {
    model: "paper-bert-large",
    twin: "paper-bert-large-tiny",
    precision: "mixed",
    optimizer: adam(),
    samples: usual(8),
  },
  {
    model: "paper-mamba-1.4b",
    twin: "paper-mamba-1.4b-tiny",
    precision: "mixed",
    optimizer: adamw(),
    samples: usual(8),
  },
  {
    model: "paper-resnet-152",
    twin: "paper-resnet-152-tiny",
    precision: "f32",
    optimizer: sgd({ learningRate: 1e-3 }),
    samples: (schedule, ranks) => schedule === "naive" ? 32 / ranks : usual(32)(schedule),
  },
];
