/** What is checked of a layer, a row each. */
import { UserError } from "../../errors.ts";
import { generator } from "../../random.ts";
import type { Parameter } from "../parameter.ts";
import { recomputed } from "../recompute.ts";
import { type Difference, difference, worse } from "./compare.ts";
import { type Outcome, run } from "./course.ts";
import { compareDirection, compareElements, isLarge } from "./differences.ts";
import type { Keeping } from "./kept.ts";
import { hasGradient, type Subject } from "./subject.ts";

/** One thing that must be so, and whether it is. */
export interface CheckRow {
  /** What must be so, "W of 2 micro-batches gives the sum of their gradients" for example. */
  readonly check: string;
  /** The element type that the layer ran in. */
  readonly precision: "f32" | "f16";
  /** Whether it is so: the error is no larger than the tolerance. */
  readonly ok: boolean;
  /**
   * The largest error that was found: of numbers, as a part of the largest right one; of memory, bytes; 0 or 1 where there is
   * nothing between right and wrong.
   */
  readonly error: number;
  /** The largest error that is allowed. */
  readonly tolerance: number;
  /** Where the error is largest, or what is wrong; how much could be looked at, where that is not all. */
  readonly where: string;
}

/** The largest errors that are allowed. */
const allowed = {
  /** Of gradients beside differences of a forward in f32. */
  differences: 2e-3,
  /** Of the slope along a whole tensor, where kinks cannot be avoided. */
  direction: 0.03,
  /** Of the same sums in another order. */
  sums: 1e-4,
  /** Of f16 beside f32. */
  halves: 0.02,
};

/** Compares dx and every gradient of the plain run with differences of the forward. */
export async function checkSlopes(subject: Subject, plain: Outcome): Promise<CheckRow[]> {
  const rows: CheckRow[] = [];
  const check = async (of: Parameter | "dx", gradient: Float32Array) => {
    const title = of === "dx" ? "dx (of I)" : `the gradient of ${of.name} (of W)`;
    const { looked, believed, where, error } = await compareElements(subject, of, gradient);
    const enough = 2 * believed >= looked;
    const left = believed < looked ? `; steps agree at ${believed} of ${looked} places` : "";
    rows.push(row(`${title} is that of F's differences`, subject, allowed.differences, {
      error: enough ? error : Infinity,
      where: enough ? where + left : `F has no derivative that steps agree on, but at ${believed} of ${looked} places`,
    }));
    if (isLarge(gradient)) {
      const along = await compareDirection(subject, of, gradient);
      rows.push(row(`${title} is right along a random direction`, subject, allowed.direction, along));
    }
  };
  if (hasGradient(subject)) await check("dx", plain.inputGradients[0]);
  for (const [parameter, gradient] of plain.gradients.end) await check(parameter, gradient);
  return rows;
}

/** Compares runs of the functions in other groups, on other memory and in other orders with plain ones. */
export async function checkRuns(subject: Subject, plain: Outcome, width: number): Promise<CheckRow[]> {
  const { layer } = subject;
  const exact = (check: string, found: Difference) => row(check, subject, 0, found);
  const again = await run(subject), over = await run(subject, { before: NaN });
  const rows = [
    exact("the same numbers come each time", everything(subject, again, [plain])),
    exact("y is written, whatever was there", outputs(subject, over, [plain])),
    exact("x and dy are read only", told(plain.changed.length > 0, `${plain.changed.join(" and ")} has changed`)),
    exact("what is used later is kept", later(subject, await run(subject, { spoil: true }), [plain])),
  ];
  if (hasGradient(subject)) {
    rows.push(exact("dx is written, whatever was there", inputGradients(subject, over, [plain])));
  }
  if (layer.parameters.length === 0) return rows;

  const recomputing = await run({ ...subject, layer: recomputed(layer, "both") });
  const state = difference("the state", [plain.state.length], recomputing.state, plain.state);
  rows.push(exact("recomputed, it gives the same", worse(later(subject, recomputing, [plain]), state)));

  const singles = [plain];
  for (let first = 1; first < width; first++) singles.push(await run(subject, { first }));
  const start = startOf(plain);
  const added = await run(subject, { start });
  const before = [...plain.gradients.end.keys()].map((parameter) =>
    difference(parameter.name, parameter.shape, added.gradients.afterI.get(parameter)!, start(parameter))
  );
  rows.push(
    exact("I leaves the parameters' gradients as they are", before.reduce(worse, nothing)),
    row("W adds to the gradients", subject, allowed.sums, gradients(added, [plain], start)),
  );
  if (hasGradient(subject)) {
    rows.push(
      exact("without dx the gradients are the same", gradients(await run(subject, { wanted: false }), [plain])),
    );
  }
  for (let microbatches = 2; microbatches <= width; microbatches++) {
    const joined = await run(subject, { microbatches });
    const check = `W of ${microbatches} micro-batches gives the sum of their gradients`;
    rows.push(row(check, subject, allowed.sums, later(subject, joined, singles.slice(0, microbatches))));
  }
  if (width > 1) {
    const apart = await run(subject, { microbatches: width, apart: true });
    const check = `W of ${width} micro-batches that are no neighbours in memory gives it too`;
    rows.push(row(check, subject, allowed.sums, later(subject, apart, singles)));
  }
  if (Object.values(subject.layer.reads).includes("sums") || subject.layer.flops(subject.inputShape).sums) {
    const check = `W of ${width} micro-batches that makes the sums gives what I's sums give`;
    const inW = await run(subject, { microbatches: width, sums: "w" });
    const tolerance = subject.dtype === "f16" ? allowed.halves : allowed.sums; // what waits for them is f16 as well
    rows.push(row(check, subject, tolerance, later(subject, inW, singles)));
  }
  const whole = await run(subject, { microbatches: width, whole: true });
  rows.push(row("B gives what I and W give", subject, allowed.sums, later(subject, whole, singles)));
  return rows;
}

/** Whether all memory is given back, whichever function is the last. */
export async function checkMemory(subject: Subject): Promise<CheckRow[]> {
  let before = 0;
  const rows: CheckRow[] = [];
  for (const last of ["F", "I", "W"] as const) {
    const { left } = await run(subject, { last });
    const more = left - before;
    rows.push(row(`${last} gives back what it takes`, subject, 0, { error: more, where: `${more} bytes are left` }));
    before = left;
  }
  return rows;
}

/** Whether what is kept is read, and `reads` says so. */
export function checkKeeping(subject: Subject, keeping: Keeping): CheckRow[] {
  const { reads } = subject.layer, { afterForward, afterInput, idleAfterForward, idleAfterInput } = keeping;
  const list = (names: readonly string[]) => names.map((name) => `"${name}"`).join(", ");
  const missing = (["x", "dy"] as const).filter((name) =>
    reads[name === "x" ? "input" : "gradient"] === true && !afterInput.some(({ of }) => of === name)
  );
  const others = [...afterForward, ...afterInput].filter(({ of }) => of === "itself").map(({ name }) => name);
  const exact = (check: string, wrong: boolean, where: string) => row(check, subject, 0, told(wrong, where));
  return [
    exact("I or W reads all that F keeps", idleAfterForward.length > 0, `nobody reads ${list(idleAfterForward)}`),
    exact("W reads all that I leaves", idleAfterInput.length > 0, `W does not read ${list(idleAfterInput)}`),
    exact(
      "what `reads` says of W is kept for it",
      missing.length > 0,
      `W reads ${missing.join(" and ")}, says \`reads\`, but after I that is not kept`,
    ),
    ...reads.nothingElse
      ? [exact("nothing else than x and dy is kept", others.length > 0, `\`reads\` says so, but ${list(others)} is`)]
      : [],
  ];
}

/** Runs the layer in f16 beside f32; a layer that has no such form makes a row of it. */
export async function checkHalves(half: Subject, plain: Outcome, width: number): Promise<CheckRow[]> {
  try {
    const own = await run(half);
    return [
      row("y is that of f32", half, allowed.halves, outputs(half, own, [plain])),
      ...hasGradient(half) ? [row("dx is that of f32", half, allowed.halves, inputGradients(half, own, [plain]))] : [],
      ...half.layer.parameters.length > 0
        ? [row("the gradients are those of f32", half, allowed.halves, gradients(own, [plain]))]
        : [],
      ...await checkRuns(half, own, width),
      ...await checkMemory(half),
    ];
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return [row("the layer runs in f16", half, 0, told(true, error.message))];
  }
}

function row(check: string, { dtype }: Subject, tolerance: number, { error, where }: Difference): CheckRow {
  return { check, precision: dtype, ok: error <= tolerance, error, tolerance, where };
}

function told(wrong: boolean, where: string): Difference {
  return { error: wrong ? 1 : 0, where: wrong ? where : "" };
}

/** Numbers to add to, of the size of those that are added. */
function startOf(plain: Outcome): (parameter: Parameter) => Float32Array {
  return (parameter) => {
    const gradient = plain.gradients.end.get(parameter)!, random = generator(`start ${parameter.name}`);
    const largest = gradient.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    return gradient.map(() => largest * random.normal());
  };
}

function outputs({ outputShape }: Subject, { outputs }: Outcome, singles: readonly Outcome[]): Difference {
  return outputs.map((y, i) => difference("y", outputShape, y, singles[i].outputs[0])).reduce(worse);
}

const nothing: Difference = { error: 0, where: "" };

function inputGradients({ inputShape }: Subject, outcome: Outcome, singles: readonly Outcome[]): Difference {
  return outcome.inputGradients.map((dx, i) => difference("dx", inputShape, dx, singles[i].inputGradients[0]))
    .reduce(worse, nothing);
}

/** The gradients against the sum of those of single micro-batches, on top of what was there. */
function gradients(
  outcome: Outcome,
  singles: readonly Outcome[],
  start?: (parameter: Parameter) => Float32Array,
): Difference {
  const each = [...outcome.gradients.end].map(([parameter, gradient]) => {
    const right = Float64Array.from(start?.(parameter) ?? gradient.map(() => 0));
    for (const { gradients } of singles) gradients.end.get(parameter)!.forEach((value, i) => right[i] += value);
    return difference(parameter.name, parameter.shape, gradient, right);
  });
  return each.reduce(worse, nothing);
}

/** What I and W give. */
function later(subject: Subject, outcome: Outcome, singles: readonly Outcome[]): Difference {
  return worse(inputGradients(subject, outcome, singles), gradients(outcome, singles));
}

function everything(subject: Subject, outcome: Outcome, singles: readonly Outcome[]): Difference {
  return worse(outputs(subject, outcome, singles), later(subject, outcome, singles));
}
