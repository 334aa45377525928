/** Low-rank adapters beside a projection (LoRA, Hu et al., arXiv 2106.09685). */
import { UserError } from "../errors.ts";
import { takeColumns } from "../ops/columns.ts";
import { matmul, matmulBatched, type Matrices } from "../ops/matmul.ts";
import { anything, callback, expectFields, expectValue, having, optional, positive, real } from "../rules.ts";
import { joinAdjacent, type Tensor } from "../tensor.ts";
import { composed } from "./composite.ts";
import { frozenPart } from "./frozen.ts";
import { addFlops, type Layer, type ProjectionPart } from "./layer.ts";
import { type Adapts, butFrozen, isTrained, type Parameter, parameter, type Trainable } from "./parameter.ts";
import { piecesOf } from "./past.ts";
import { backwardInput, forward } from "./run.ts";
import { either } from "./sums.ts";

/** What an adapter is. */
export interface LoraOptions {
  /** Columns of A and rows of B, r. */
  readonly rank: number;
  /** What A B is multiplied with, times the rank; the rank by default, which makes the factor 1. */
  readonly alpha?: number;
  /** Which of several projections side by side are adapted, by their names, "blocks.0.attention.q" say; all by default. */
  readonly targets?: (projection: string) => boolean;
  /** Which of the adapters' matrices are trained, by names as "blocks.0.attention.q.lora_A.weight"; all by default. */
  readonly trainable?: Trainable;
}

/** The adapter of one projection. */
interface Adapter {
  readonly part: ProjectionPart;
  /** First of its columns in y. */
  readonly start: number;
  readonly a: Parameter;
  readonly b: Parameter;
}

/**
 * `y = base(x) + alpha / rank * x A B`, with A [inputs, rank] of normal numbers of deviation 1 / sqrt(inputs) and B [rank, outputs] of
 * zeros, so that it starts as the base does. Where the base is several projections side by side, as queries, keys and values are,
 * each has an adapter of its own, in its columns. The base is whatever says what it projects ({@link Layer.projects}), `linear`
 * for one; it is trained too unless it is frozen.
 *
 * ```ts
 * import { frozen, linear, lora } from "twobp/layers";
 *
 * const base = linear("up", 512, 2048);
 * const adapted = lora(frozen(base), { rank: 8, alpha: 16 });
 * console.log(adapted.parameters.map(({ name }) => name)); // up.weight, up.lora_A.weight, up.lora_B.weight
 * console.log(adapted.flops([64, 512]).w / base.flops([64, 512]).w); // 0.02: what is left of W
 * ```
 *
 * I works out x's gradient through base and adapters, and the gradient of x A, which it leaves for W with x A, x and dy, of
 * several projections side by side the columns that have adapters: W is two products of rank columns for each. So W costs next to
 * nothing, and waits for as much memory as that of the base would. With A frozen (LoRA-FA, Zhang et al., arXiv 2308.03303) x does not
 * wait.
 *
 * @throws {UserError} When the base does not say what it projects, no projection of it is a target, or rank and alpha are not above 0.
 */
export function lora(base: Layer, options: LoraOptions): Layer {
  expectValue("lora: the base", base, having("outputShape", "forward", "backwardInput"));
  expectFields("lora", options, {
    rank: positive,
    alpha: optional(real({ least: "above 0" })),
    targets: optional(callback),
    trainable: anything,
  });
  const { rank, alpha = rank, targets = () => true, trainable = true } = options;
  const { projects } = base;
  if (!projects) {
    const names = base.parameters.map(({ name }) => name).join(", ") || "none";
    throw new UserError(
      `lora: the base, whose parameters are ${names}, is no projection; give linear(), or a layer with \`projects\``,
    );
  }
  const { weight, inputs, transposed, parts } = projects;
  const adapters: Adapter[] = [];
  let width = 0;
  for (const part of parts) {
    const start = width;
    width += part.outputs;
    if (!targets(part.name)) continue;
    const adapts = { projection: part.name, weight, transposed, start, rank, alpha };
    const described = (factor: Adapts["factor"], shape: number[], initial: Parameter["initial"]): Parameter => ({
      ...parameter(`${part.name}.lora_${factor}.weight`, shape, initial, trainable),
      adapts: { factor, ...adapts },
    });
    const a = described("A", [inputs, rank], { normal: inputs ** -0.5 });
    adapters.push({ part, start, a, b: described("B", [rank, part.outputs], "zeros") });
  }
  if (adapters.length === 0) {
    throw new UserError(
      `lora: no projection of the base is a target; it has ${parts.map(({ name }) => name).join(", ")}`,
    );
  }
  const scale = alpha / rank;
  // Columns without an adapter are not kept for W, where nobody else keeps them.
  const apart = adapters.length < parts.length && base.reads.gradient !== true;
  const trainsA = adapters.some(({ a }) => isTrained(a)), trainsB = adapters.some(({ b }) => isTrained(b));

  /** An adapter's columns of a tensor that is as wide as y. */
  const columns = (tensor: Tensor, { part, start }: Adapter): Matrices => ({
    ...matrix(tensor),
    columns: part.outputs,
    offset: start,
  });
  const dyOf = ({ part }: Adapter) => apart ? `${part.name}.dy` : "dy";
  const lowOf = ({ part }: Adapter) => `${part.name}.low`, dlowOf = ({ part }: Adapter) => `${part.name}.dlow`;

  return composed({ base }, {
    ...piecesOf(base),
    parameters: adapters.flatMap(({ a, b }) => [a, b]),
    reads: { input: either(base.reads.input, trainsA), gradient: either(base.reads.gradient, trainsB && !apart) },
    outputShape: (shape) => base.outputShape(shape),
    flops(shape) {
      const through = (outputs: number) => 2 * shape[0] * rank * outputs;
      return addFlops(
        ...adapters.map(({ part: { outputs }, a, b }) => ({
          f: through(inputs) + through(outputs),
          i: through(inputs) + through(outputs),
          w: Number(isTrained(a)) * through(inputs) + Number(isTrained(b)) * through(outputs),
        })),
        base.flops(shape),
      );
    },
    forward(y, x, saved) {
      if (trainsA) saved.keep("x", x);
      forward(base, y, x, saved.child("base", { unread: saved.unread }));
      for (const each of adapters) {
        const trained = isTrained(each.b), shape = [x.shape[0], rank];
        if (saved.unread && !trained) continue;
        const low = trained ? saved.slot(lowOf(each), shape, "activations", y.dtype) : saved.scratch(shape, y.dtype);
        matmul(low, x, saved.value(each.a));
        if (trained) saved.keep(lowOf(each), low);
        if (saved.unread) continue;
        const b = matrix(saved.value(each.b));
        matmulBatched(columns(y, each), matrix(low), b, [1, 1], { scale, accumulate: true });
      }
    },
    backwardInput(dx, dy, saved) {
      if (trainsB && !apart) saved.keep("dy", dy);
      backwardInput(base, dx, dy, saved.child("base"));
      for (const each of adapters) {
        if (apart && isTrained(each.b)) {
          const own = saved.slot(dyOf(each), [dy.shape[0], each.part.outputs], "derivatives", dy.dtype);
          takeColumns(own, dy, each.start);
          saved.keep(dyOf(each), own);
        }
        const trained = isTrained(each.a), shape = [dy.shape[0], rank];
        if (!dx && !trained) continue;
        const dlow = trained
          ? saved.slot(dlowOf(each), shape, "derivatives", dy.dtype)
          : saved.scratch(shape, dy.dtype);
        const b = matrix(saved.value(each.b));
        matmulBatched(matrix(dlow), columns(dy, each), b, [1, 1], { scale, transposeB: true });
        if (trained) saved.keep(dlowOf(each), dlow);
        if (dx) matmul(dx, dlow, saved.value(each.a), { transposeB: true, accumulate: true });
      }
    },
    backwardWeight(saved) {
      const [{ gradient, group: { samples } }] = saved;
      const kept = (...names: string[]) => joinAdjacent(saved.map((each) => names.map((name) => each.get(name))));
      for (const each of adapters) {
        const low = lowOf(each), dlow = dlowOf(each), { a, b } = each;
        const rowsOf = (name: string) => saved[0].get(name).shape[0] / samples;
        if (isTrained(a)) {
          const product = { transposeA: true, accumulate: true, sampleRows: rowsOf(dlow) };
          for (const [x, dinside] of kept("x", dlow)) matmul(gradient(a), x, dinside, product);
        }
        if (isTrained(b)) {
          const product = { transposeA: true, accumulate: true, scale, sampleRows: rowsOf(low) };
          for (const [inside, dy] of kept(low, dyOf(each))) {
            const derivative = apart ? matrix(dy) : columns(dy, each);
            matmulBatched(matrix(gradient(b)), matrix(inside), derivative, [1, 1], product);
          }
        }
      }
    },
    freeze: (isFrozen) => lora(frozenPart(base, isFrozen), { ...options, trainable: butFrozen(trainable, isFrozen) }),
    withParts: (change) => lora(change(base), options),
  });
}

function matrix(tensor: Tensor): Matrices {
  const [rows, columns] = tensor.shape;
  return { tensor, rows, columns, rowStride: columns, offset: 0, strides: [0, 0] };
}
