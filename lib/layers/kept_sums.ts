/** Sums over one micro-batch's rows that I makes and W adds to a parameter's gradient. */
import { columnSum } from "../ops/bias.ts";
import { joinAdjacent, type Tensor } from "../tensor.ts";
import type { Parameter } from "./parameter.ts";
import type { Saved } from "./saved.ts";

/** Memory for the sum `name` of so many columns: kept for W where its parameter is trained, and scratch where it is not. */
export function keptSum(saved: Saved, name: string, columns: number, trained: boolean): Tensor {
  if (!trained) return saved.scratch([1, columns]);
  const sum = saved.slot(name, [1, columns], "derivatives");
  saved.keep(name, sum);
  return sum;
}

/** Adds the sums `name` of all micro-batches to the gradient of their parameter. */
export function addSums(parameter: Parameter, name: string, saved: readonly Saved[]): void {
  const gradient = saved[0].gradient(parameter);
  for (const [sums] of joinAdjacent(saved.map((each) => [each.get(name)] as const))) columnSum(gradient, sums);
}
