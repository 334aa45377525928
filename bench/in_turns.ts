/** Trainings that stand still after each update until they are told to go on, so that several can be measured step by step in turn. */
import process from "node:process";
import type { Pipeline } from "twobp";
import { train, type TrainOptions, type TrainResult } from "twobp/train";

/** An update, and the time from when it was asked for, without an evaluation in between. */
export interface TimedStep {
  readonly loss: number;
  readonly ms: number;
  /** Of the processor, in all threads of the process, software drivers' included: neighbours do not make it longer as they do the other. */
  readonly cpuMs: number;
}

/** Begins to measure; what it gives says how long that was ago. */
export function clock(): () => Pick<TimedStep, "ms" | "cpuMs"> {
  const from = performance.now(), { user, system } = process.cpuUsage();
  return () => {
    const now = process.cpuUsage();
    return { ms: performance.now() - from, cpuMs: (now.user - user + now.system - system) / 1000 };
  };
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
  let ended: Promise<TrainResult> | undefined, since = clock();
  let goOn = () => {};
  let give: (step: TimedStep | undefined) => void, fail: (error: unknown) => void;
  const begin = () =>
    train(pipeline, {
      ...options,
      onStep({ loss }) {
        const time = since();
        return new Promise<void>((resolve) => {
          goOn = resolve;
          give({ loss, ...time });
        });
      },
      async onEvaluation(evaluation) {
        await options.onEvaluation?.(evaluation);
        since = clock();
      },
    });
  return {
    next() {
      const reached = new Promise<TimedStep | undefined>((resolve, reject) => [give, fail] = [resolve, reject]);
      since = clock();
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
