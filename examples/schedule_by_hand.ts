/**
 * Writes a schedule by hand: two ranks, two micro-batches, the weight gradients of rank 1 joined in one W.
 * Prints a drawing of it, its makespan and bubble (simulated), and what the validator says of a mistake.
 */
import { actionMaker, linearPlacement, type Schedule, simulate, UserError, validate } from "twobp/schedules";
import { ganttText } from "twobp/report";

const make = actionMaker(2); // makes actions of one of two micro-batches: kind, stage, micro-batch
const mine: Schedule = {
  name: "mine",
  placement: linearPlacement(2), // stage 0 on rank 0, stage 1 on rank 1
  actions: [
    [make("F", 0, 0), make("F", 0, 1), make("B", 0, 0), make("B", 0, 1)],
    [
      ...[make("F", 1, 0), make("I", 1, 0), make("F", 1, 1), make("I", 1, 1)],
      { kind: "W", stage: 1, microbatches: [0, 1] },
    ],
  ],
};
validate(mine); // throws where something is missing, out of order, or would deadlock
const simulated = simulate(mine);
console.log(ganttText(mine, simulated));
console.log(`makespan ${simulated.makespan}, bubble ${(100 * simulated.bubbleRatio).toFixed(1)} %`);

const [first, second] = mine.actions;
try {
  validate({ ...mine, actions: [first, second.toReversed()] });
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.log(error.message);
}
