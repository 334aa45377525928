/** Muon: matrices move by directions that are made orthogonal; what is no matrix, and what is told, moves by AdamW. */
import { made } from "../recipes.ts";
import { UserError } from "../errors.ts";
import { kernel } from "../gpu/kernel.ts";
import { fill, scale, strides } from "../ops/elementwise.ts";
import { matmul } from "../ops/matmul.ts";
import { inVectors } from "../ops/shapes.ts";
import { singleOperation } from "../ops/variants.ts";
import { expectFields, expectValue, optional, real, type Rules } from "../rules.ts";
import { empty, release, sizeOf, type Tensor, view } from "../tensor.ts";
import { matchRule } from "../matching.ts";
import { type Matching, specFor } from "./optimizer_groups.ts";
import { adamw, type AdamWOptions, type Optimizer, type OptimizerSpec, type PlacedShape } from "./optimizers.ts";

/** Settings of {@link muon}; the defaults are PyTorch's. */
export interface MuonOptions {
  /** Step size of matrices, 0 or more; 0.001 by default. It is of AdamW's size: see {@link muon}. */
  readonly learningRate?: number;
  /** Weight of the past in the direction, 0 or more, and below 1; 0.95 by default. */
  readonly momentum?: number;
  /** Of matrices, 0 or more; 0.1 by default. */
  readonly weightDecay?: number;
  /** How all others move, by AdamW: gains and biases, and the matrices that its `match` finds. */
  readonly others?: MuonOthers;
}

/** What {@link muon} leaves to AdamW, and with which settings; those that are left out are AdamW's. */
export interface MuonOthers extends Omit<AdamWOptions, "groups">, Partial<Matching> {}

const rate = real({ least: 0 });
const rules: Rules<MuonOptions> = {
  learningRate: optional(rate),
  momentum: optional(real({ least: 0, below: 1 })),
  weightDecay: optional(rate),
  others: optional({ right: "an object of settings", accepts: (value) => typeof value === "object" && value !== null }),
};

/**
 * Muon (Jordan et al., https://kellerjordan.github.io/posts/muon/): the mean of past gradients, and of it the nearest orthogonal
 * matrix, nearly, by five steps of a Newton-Schulz iteration in f32. Its size is adjusted by `0.2 * sqrt(the longer side)`, so that
 * rate and decay may be those that AdamW would have (Liu et al., arXiv 2502.16982, section 2.2; PyTorch's `match_rms_adamw`). A
 * convolution's weight counts as the matrix of its outputs.
 *
 * Embeddings and output heads are matrices by shape and not by nature: leave them to AdamW.
 *
 * ```ts
 * import { muon } from "twobp/train";
 *
 * const optimizer = muon({ learningRate: 2e-3, others: { match: /embedding|head/, learningRate: 1e-3 } });
 * console.log(optimizer.name, optimizer.groups?.length); // muon 1
 * ```
 *
 * It keeps one number for each element of a matrix, and room for the products of the largest.
 *
 * @throws {UserError} On an option out of its range, or an unknown one. A `match` that no parameter of the model has is refused by the
 * pipeline.
 */
export function muon(options: MuonOptions = {}): OptimizerSpec {
  expectFields("muon", options, rules);
  const { learningRate = 1e-3, momentum = 0.95, weightDecay = 0.1, others = {} } = options;
  const { match, ...settings } = others;
  if (match !== undefined) expectValue("muon: others.match", match, matchRule);
  const rest = adamw(settings);
  return made("muon", [options], {
    name: "muon",
    learningRate,
    moments: 1,
    settings: {
      ...{ learningRate, momentum, weightDecay },
      ...Object.fromEntries(Object.entries(rest.settings!).map(([name, value]) => [`others.${name}`, value])),
    },
    ...(match === undefined ? {} : { groups: [{ match, spec: rest }] }),
    create(parameters, gradients, matrices, copy, shapes) {
      if (!shapes) throw new UserError("muon: an optimizer of matrices needs their shapes");
      const flat = (tensor: Tensor) => view(tensor, [sizeOf(tensor.shape) - matrices], matrices * bytesEach(tensor));
      const own = matrices > 0
        ? ofMatrices({ learningRate, momentum, weightDecay }, { parameters, gradients, matrices, copy, shapes })
        : undefined;
      if (sizeOf(parameters.shape) === matrices) return own!;
      const views = [flat(parameters), flat(gradients), ...copy ? [flat(copy)] : []];
      const left = rest.create(views[0], views[1], 0, views[2]);
      const parts = own ? [own, left] : [left];
      // A step's rate is given as that of matrices, and all learning rates go with it; where theirs is 0, as that of the others.
      const leading = learningRate || left.learningRate;
      return {
        learningRate: leading,
        prepare(given, lossScale) {
          own?.prepare(given === undefined || learningRate > 0 ? given : 0, lossScale);
          const factor = given === undefined || leading === 0 ? undefined : given / leading;
          left.prepare(factor === undefined ? undefined : factor * left.learningRate, lossScale);
        },
        step: () => parts.forEach((part) => part.step()),
        commit: () => parts.forEach((part) => part.commit()),
        release() {
          parts.forEach((part) => part.release());
          release(...views);
        },
        memory: {
          moments: [
            ...own?.memory?.moments ?? [],
            ...left.memory!.moments.map((each) => ({ ...each, start: matrices + each.start })),
          ],
          get updates() {
            return left.memory!.updates;
          },
          resume: (updates) => parts.forEach((part) => part.memory!.resume(updates)),
        },
      };
    },
  });
}

/**
 * Refuses tied matrices that would move by {@link muon}: the two copies, on two devices perhaps, go through products of matrices whose
 * last bits are the device's own, and would part.
 *
 * @param names Of tied parameters with more than one axis.
 * @throws {UserError} Names the first, and what to do.
 */
export function expectUntied(optimizer: OptimizerSpec, names: readonly string[]): void {
  const found = names.find((name) => specFor(optimizer, name).name === "muon");
  if (found === undefined) return;
  throw new UserError(
    `muon: "${found}" is tied, and its copies would part: leave it to AdamW, others: { match: /.../ } with its name`,
  );
}

const bytesEach = ({ dtype }: Tensor) => dtype === "f16" ? 2 : 4;

/** Workgroups of the sum of squares, as in the kernel. */
const sumParts = 64;
const settings = { momentum: 0, rest: 0, epsilon: 0, factor: 0, decay: 0 };
const kernels = Object.fromEntries(
  ["turn", "squares", "normalise", "apply", "apply_copy"].map((entry) => [entry, kernel("muon", entry)]),
);

const turn = singleOperation<[gradients: Tensor, mean: Tensor, scalars: Tensor, momentum: number]>({
  name: "muonTurn",
  kernel: "muon:turn",
  outputs: 2,
  record(gradients, mean, scalars, momentum) {
    const count = Math.ceil(sizeOf(gradients.shape) / 4), { device } = gradients;
    const parameters = { ...settings, count, momentum, rest: 1 - momentum };
    device.dispatch(kernels.turn, parameters, [inVectors(gradients), inVectors(mean), scalars], strides(device, count));
  },
});

const normalise = singleOperation<[scaled: Tensor, parts: Tensor, x: Tensor]>({
  name: "muonNormalise",
  kernel: "muon:normalise",
  outputs: 2,
  record(scaled, parts, x) {
    const count = sizeOf(x.shape), { device } = x;
    const parameters = { ...settings, count, epsilon: 1e-7 };
    device.dispatch(kernels.squares, parameters, [parts, x], [sumParts]);
    device.dispatch(kernels.normalise, parameters, [scaled, x, parts], strides(device, count));
  },
});

const apply = singleOperation<
  [
    ...[parameters: Tensor, gradients: Tensor, copy: Tensor | undefined],
    ...[scalars: Tensor, direction: Tensor, factor: number, decay: number],
  ]
>({
  name: "muonApply",
  kernel: "muon:apply",
  outputs: ([parameters, gradients, copy]) => [parameters, gradients, ...copy ? [copy] : []],
  record(parameters, gradients, copy, scalars, direction, factor, decay) {
    const count = sizeOf(parameters.shape), { device } = parameters;
    const views = [parameters, gradients, scalars, direction, ...copy ? [copy] : []];
    const chosen = copy ? kernels.apply_copy : kernels.apply;
    device.dispatch(chosen, { ...settings, count, factor, decay }, views, strides(device, count));
  },
});

/** A matrix in a block. */
interface Matrix {
  readonly start: number;
  readonly rows: number;
  readonly columns: number;
}

/** Coefficients of the iteration `X = a X + (b A + c A A) X`, A being X X^T. */
const [a, b, c] = [3.4445, -4.7750, 2.0315];
const iterations = 5;

function ofMatrices(
  { learningRate, momentum, weightDecay }: { learningRate: number; momentum: number; weightDecay: number },
  { parameters, gradients, matrices, copy, shapes }: {
    parameters: Tensor;
    gradients: Tensor;
    matrices: number;
    copy: Tensor | undefined;
    shapes: readonly PlacedShape[];
  },
): Optimizer {
  const { device } = parameters;
  const all = shapes.filter(({ start }) => start < matrices).map(({ start, shape }): Matrix => {
    const columns = shape[shape.length - 1];
    return { start, rows: sizeOf(shape) / columns, columns };
  });
  const most = (length: (matrix: Matrix) => number) =>
    all.reduce((largest, each) => Math.max(largest, length(each)), 0);
  const room = (elements: number) => empty(device, [elements], "optimizer");
  const mean = room(matrices), scalars = room(4), parts = room(sumParts);
  const wide = [0, 1].map(() => room(most(({ rows, columns }) => rows * columns)));
  const square = [0, 1].map(() => room(most(({ rows, columns }) => Math.min(rows, columns) ** 2)));
  fill(mean, 0);
  let known: readonly number[] = [], written: readonly number[] = [], done = 0;

  /** Records what becomes of one matrix, whose direction stands where its gradients were. */
  function move({ start, rows, columns }: Matrix) {
    const isTall = rows > columns, side = Math.min(rows, columns);
    let [from, to] = wide.map((each) => view(each, [rows, columns]));
    const [product, both] = square.map((each) => view(each, [side, side]));
    const part = (whole: Tensor) => view(whole, [rows * columns], start * bytesEach(whole));
    const [values, spent] = [part(parameters), part(gradients)], half = copy && part(copy);
    normalise.run([from, parts, spent]);
    for (let i = 0; i < iterations; i++) {
      matmul(product, from, from, isTall ? { transposeA: true } : { transposeB: true });
      scale(both, product, b);
      matmul(both, product, product, { scale: c, accumulate: true });
      scale(to, from, a);
      if (isTall) matmul(to, from, both, { accumulate: true });
      else matmul(to, both, from, { accumulate: true });
      [from, to] = [to, from];
    }
    apply.run([values, spent, half, scalars, from, 0.2 * Math.sqrt(Math.max(rows, columns)), weightDecay]);
    release(from, to, product, both, values, spent, half);
  }

  return {
    learningRate,
    prepare(given = learningRate, lossScale = 1) {
      if (given !== learningRate) expectValue("muon: the learning rate of a step", given, rate);
      written = [given, 0, 0, 1 / lossScale];
      if (written.some((value, i) => value !== known[i])) device.write(scalars, Float32Array.from(written));
      known = [];
    },
    step() {
      const own = view(gradients, [matrices]);
      turn.run([own, mean, scalars, momentum]);
      release(own);
      all.forEach(move);
    },
    commit() {
      done++;
      known = written;
    },
    memory: {
      moments: [{ name: "momentum_buffer", start: 0, values: mean }],
      get updates() {
        return done;
      },
      resume(updates) {
        done = updates;
      },
    },
    release() {
      release(mean, scalars, parts, ...wide, ...square);
    },
  };
}
