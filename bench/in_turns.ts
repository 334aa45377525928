/** Trainings that stand still after each update until they are told to go on, so that several can be measured step by step in turn. */
import type { Pipeline } from "twobp";
import { train, type TrainOptions, type TrainResult } from "twobp/train";

/** An update, and the time from when it was asked for, without an evaluation in between. */
export interface TimedStep {
  readonly loss: number;
  readonly ms: number;
}

/** What can be told to make its next update. */
export interface Stepper {
  /** Makes it; nothing, where all are made and the training has ended. */
  next(): Promise<TimedStep | undefined>;
}

/** A `train()` that waits in `onStep` until its next update is asked for. */
export function steppedTraining(
  pipeline: Pipeline,
  options: Omit<TrainOptions, "onStep">,
): Stepper & { readonly ended: () => Promise<TrainResult> } {
  let ended: Promise<TrainResult> | undefined, from = 0;
  let goOn = () => {};
  let give: (step: TimedStep | undefined) => void, fail: (error: unknown) => void;
  const begin = () =>
    train(pipeline, {
      ...options,
      onStep({ loss }) {
        const ms = performance.now() - from;
        return new Promise<void>((resolve) => {
          goOn = resolve;
          give({ loss, ms });
        });
      },
      async onEvaluation(evaluation) {
        await options.onEvaluation?.(evaluation);
        from = performance.now();
      },
    });
  return {
    next() {
      const reached = new Promise<TimedStep | undefined>((resolve, reject) => [give, fail] = [resolve, reject]);
      from = performance.now();
      if (ended) {
        goOn();
      } else {
        ended = begin();
        ended.then(() => give(undefined), (error) => fail(error));
      }
      return reached;
    },
    ended: () => ended!,
  };
}

/** Asks all for an update, round after round, each round from the other end, until they have ended. */
export async function inTurns(
  steppers: readonly Stepper[],
  onRound: (steps: readonly TimedStep[], round: number) => void,
): Promise<void> {
  for (let round = 0;; round++) {
    const steps: (TimedStep | undefined)[] = steppers.map(() => undefined);
    const order = [...steppers.keys()];
    for (const at of round % 2 === 0 ? order : order.reverse()) steps[at] = await steppers[at].next();
    const made = steps.filter((step) => step !== undefined);
    if (made.length === 0) return;
    if (made.length < steps.length) throw new Error(`In round ${round} ${made.length} of ${steps.length} had a step`);
    onRound(made, round);
  }
}
