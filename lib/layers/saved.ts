/** What layers keep of a micro-batch between its forward, its backward-p1 (I) and its backward-p2 (W). */
import type { Device } from "../gpu/device.ts";
import type { Category } from "../memory.ts";
import { type DType, empty, release, retain, type Tensor } from "../tensor.ts";
import type { StateBuffer } from "./buffers.ts";
import { type Group, slotIn } from "./group.ts";
import type { Parameter } from "./parameter.ts";
import type { Past } from "./past.ts";
import type { Sums } from "./sums.ts";

/** How the store of a child layer differs from its parent's. */
export interface ChildOptions {
  /** Another group for its slots to lie in. */
  readonly group?: Group;
  /** The micro-batch's number in that group; 0 by default. */
  readonly index?: number;
  /** Whether the child recomputes, see {@link Saved.recomputing}. */
  readonly recomputing?: boolean;
  /** Whether nobody reads what the child's forward gives, see {@link Saved.unread}. */
  readonly unread?: boolean;
}

/**
 * What a layer has of one micro-batch: the tensors that it keeps, by name, and its way to memory and to its parameters. Composite
 * layers give each child a store of its own.
 */
export interface Saved {
  /** Where the tensors live. */
  readonly device: Device;
  /** The micro-batches that share their W with this one. */
  readonly group: Group;
  /** The micro-batch's number in the group. */
  readonly index: number;
  /** Whether W comes at a time of its own, or follows I at once in a full backward. */
  readonly delayed: boolean;
  /**
   * Who makes those parts of the weight gradients that are sums over one micro-batch, and that I could make as well: "i", I, or "w", W,
   * from what I keeps for it. In a full backward always I.
   */
  readonly sums: Sums;
  /**
   * Whether the forward has been run before for this micro-batch, and recomputes what was not kept: it must give the same numbers,
   * and must not move state such as running statistics on once more.
   */
  readonly recomputing: boolean;
  /**
   * Whether nobody reads the y of this forward, which is run only for what it keeps: a layer may leave y unwritten. Holds for a
   * child only where its parent says so.
   */
  readonly unread: boolean;
  /**
   * Whether the model is evaluated: no backward follows, and what a forward keeps is released as soon as it returns. Dropout lets
   * everything through then, and running statistics are used and not moved on. It holds for children too.
   */
  readonly evaluating: boolean;
  /**
   * Where the rows of this forward go on with a sequence, what came before them: then the model is evaluated, and `rows` keeps under a name
   * that is the layer's own. None where a micro-batch has whole sequences, as in steps and evaluations.
   */
  readonly past?: Past;
  /** The values of a parameter; no new reference. */
  value(parameter: Parameter): Tensor;
  /**
   * The gradient of a parameter, f32, which `backwardWeight` adds to; no new reference.
   *
   * @throws {Error} When the parameter is frozen.
   */
  gradient(parameter: Parameter): Tensor;
  /** The values of a state buffer, which a forward may move on; no new reference. */
  state(buffer: StateBuffer): Tensor;
  /** The part of a child layer; the options count when it is made, at the first call. */
  child(name: string, options?: ChildOptions): Saved;
  /**
   * A new tensor of undefined content, until the layer's function returns; {@link Saved.keep} keeps it longer.
   *
   * @throws {Error} Outside a layer's function, and in one that was not called through `forward`, `backwardInput` or
   * `backwardWeight` of layers/run.ts.
   */
  scratch(shape: readonly number[], dtype?: DType, category?: Category): Tensor;
  /**
   * The same in this micro-batch's slot of its group's slab `name`: for what W will read of several micro-batches at once.
   *
   * @throws {Error} As {@link Saved.scratch}.
   */
  slot(name: string, shape: readonly number[], category: Category, dtype?: DType): Tensor;
  /** Gives scratch back before the function returns, where something large follows. */
  release(...scratch: readonly Tensor[]): void;
  /** Runs what may ask for scratch, and gives that back however it ends. Runs can lie in one another. */
  run<Result>(body: () => Result): Result;
  /**
   * What the micro-batch brings along besides the first stage's input, on every stage that has a layer which asks for it in
   * `reads.sides`, until its W is done: [samples, ...shape] of what the model describes by this name, "lengths", u32 [samples], for
   * example; "seed", u32 [2], the batch's seed and the number of the micro-batch's first sample in the batch.
   */
  side(name: string): Tensor;
  /** Keeps a reference to `tensor` under `name` until {@link Saved.drop} or {@link Saved.clear}. */
  keep(name: string, tensor: Tensor): void;
  /** A kept tensor; no new reference. */
  get(name: string): Tensor;
  /** Releases kept tensors: whatever W does not need goes right after I. */
  drop(...names: string[]): void;
  /** Releases everything of a child, which the next call of {@link Saved.child} makes anew. */
  dropChild(name: string): void;
  /** Releases everything, children's included. */
  clear(): void;
  /** All that is kept, children's included, by paths as "attention.out.x": what checks look at; no new references. */
  kept(): [path: string, tensor: Tensor][];
  /** The paths alone. */
  names(): string[];
}

/**
 * The store of one micro-batch, which is number `index` of its group; `sides` become its own. With `evaluating` it is for a forward
 * that no backward follows, see {@link Saved.evaluating}, and that may go on with a sequence, see {@link Saved.past}; with `unread` for
 * what that keeps alone, see {@link Saved.unread}.
 */
export function createSaved(
  group: Group,
  index: number,
  sides: ReadonlyMap<string, Tensor> = new Map(),
  { evaluating = false, unread = false, past }: {
    readonly evaluating?: boolean;
    readonly unread?: boolean;
    readonly past?: Past;
  } = {},
): Saved {
  const saved = createPart(group, index, { sides, evaluating, ...past ? { past } : {} }, "", { unread });
  return {
    ...saved,
    clear() {
      saved.clear();
      release(...sides.values());
    },
  };
}

function createPart(
  group: Group,
  index: number,
  whole: { readonly sides: ReadonlyMap<string, Tensor>; readonly evaluating: boolean; readonly past?: Past },
  path: string,
  { recomputing = false, unread = false }: ChildOptions,
): Saved {
  const { placed, delayed, sums } = group;
  const { sides, evaluating, past } = whole;
  const layer = path === "" ? "A stage" : `Layer "${path.slice(0, -1)}"`;
  const tensors = new Map<string, Tensor>();
  const children = new Map<string, Saved>();
  /** Scratch of the run under way. */
  let lent: Tensor[] | undefined;
  /** Where new scratch is entered. */
  const open = (): Tensor[] => {
    if (lent) return lent;
    throw new Error(
      `${layer} asks for scratch outside a layer's function, where nobody would release it: functions of layers are ` +
        "called through forward(), backwardInput() and backwardWeight()",
    );
  };
  const forget = () => {
    release(...tensors.values());
    tensors.clear();
  };
  const kept = () => [
    ...[...tensors].map(([name, tensor]): [string, Tensor] => [path + name, tensor]),
    ...[...children.values()].flatMap((child) => child.kept()),
  ];
  return {
    device: placed.device,
    group,
    index,
    delayed,
    sums,
    recomputing,
    unread,
    evaluating,
    ...past
      ? {
        past: {
          ...past,
          rows: (name, ...kind) => past.rows(path + name, ...kind),
          fixed: (name, ...kind) => past.fixed(path + name, ...kind),
        },
      }
      : {},
    value: (parameter) => placed.parameter(parameter).value,
    gradient: (parameter) => placed.parameter(parameter).gradient,
    state: (buffer) => placed.state(buffer).value,
    child(name, options = {}) {
      let child = children.get(name);
      if (!child) {
        const [its, at] = options.group ? [options.group, options.index ?? 0] : [group, index];
        children.set(name, child = createPart(its, at, whole, `${path}${name}.`, { recomputing, ...options }));
      }
      return child;
    },
    scratch(shape, dtype = "f32", category = "workspace") {
      const list = open(), tensor = empty(placed.device, shape, category, dtype);
      list.push(tensor);
      return tensor;
    },
    slot(name, shape, category, dtype) {
      const list = open(), tensor = slotIn(group, index, path + name, shape, category, dtype);
      list.push(tensor);
      return tensor;
    },
    release(...scratch) {
      const list = open();
      for (const tensor of scratch) {
        const at = list.indexOf(tensor);
        if (at < 0) throw new Error(`${layer} releases early what is no scratch of its own, or has been released`);
        list.splice(at, 1);
        release(tensor);
      }
    },
    run(body) {
      const before = lent, own: Tensor[] = lent = [];
      try {
        return body();
      } finally {
        release(...own);
        lent = before;
        if (evaluating && !before) forget();
      }
    },
    side(name) {
      const tensor = sides.get(name);
      if (!tensor) throw new Error(`There is no side input "${name}": does the layer that reads it list it?`);
      return tensor;
    },
    keep(name, tensor) {
      if (tensors.has(name)) throw new Error(`"${path}${name}" is kept already`);
      tensors.set(name, retain(tensor));
    },
    get(name) {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`"${path}${name}" is not kept: was the forward run, and W not before I?`);
      return tensor;
    },
    drop(...names) {
      for (const name of names) {
        release(this.get(name));
        tensors.delete(name);
      }
    },
    dropChild(name) {
      children.get(name)?.clear();
      children.delete(name);
    },
    clear() {
      forget();
      for (const child of children.values()) child.clear();
    },
    kept,
    names: () => kept().map(([path]) => path),
  };
}
