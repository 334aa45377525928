/** What a first process asks of workers: to make a pipeline, to join a call of it, to do to theirs what it has done, or to end. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import type { Model } from "../models/model.ts";
import { type Recipe, recipeOf } from "../recipes.ts";
import type { OptimizerSpec } from "../train/optimizers.ts";

/** Calls that all processes are in together until they end. */
export type Call = "step" | "evaluate" | "generate" | "gradients" | "parameters" | "state" | "optimizerState";

/** Calls that each process makes by itself, at once. */
export type Setting = "setParameters" | "setState" | "setOptimizerState" | "clearGradients" | "close";

/** An order; a worker follows them one after the other. */
export type Order =
  | { readonly kind: "create"; readonly pipeline: number; readonly how: Description }
  | { readonly kind: "set"; readonly pipeline: number; readonly name: Setting; readonly given: readonly unknown[] }
  | {
    readonly kind: "call";
    readonly pipeline: number;
    readonly name: Call;
    readonly given: readonly unknown[];
    /** Orders of calls that have not ended where they come from: what has ended there is waited for. */
    readonly open: readonly number[];
  }
  /** To take part in `readClocks`. */
  | { readonly kind: "clocks" }
  | { readonly kind: "end" };

/** What a worker says of an order that it does by itself, where it could not. */
export interface Problem {
  readonly reason: string;
  readonly isUsers: boolean;
}

/** Of the options of a pipeline, those that cannot be told as they are. */
export interface Options {
  readonly optimizer: OptimizerSpec;
  readonly parts?: readonly (readonly Layer[])[];
  readonly recompute?: unknown;
}

/** How a pipeline is made, in what can be told. */
export interface Description {
  readonly model: Recipe;
  readonly optimizer: Recipe;
  /** How many layers each stage has. */
  readonly parts?: readonly number[];
  readonly options: object;
}

/** What of a generation is the first process's own. */
export interface Ending {
  readonly signal?: AbortSignal;
  // deno-lint-ignore no-explicit-any
  readonly onToken?: (token: any) => void;
}

/** What goes before calls of one pipeline. */
export interface Orders {
  /** Tells that it has been made here. */
  made(): void;
  /** Has all processes make a call, of which `run` is this one's part; at once, unless a worker has yet to say that it has followed. */
  call<T, Given extends readonly unknown[]>(name: Call, given: Given, run: (...given: Given) => Promise<T>): Promise<T>;
  /** The same for a generation: only this process has its signal, and is told its tokens. */
  generate<T, Given extends Ending>(
    prompt: ArrayLike<number>,
    options: Given | undefined,
    run: (prompt: ArrayLike<number>, options?: Given) => Promise<T>,
  ): Promise<T>;
  /** Tells what has been done here. What a worker cannot do, the next call says. */
  set(name: Setting, ...given: readonly unknown[]): void;
  /** Throws where it could not be told, before it is done. */
  expectTold(given: unknown): void;
}

/** Where every process makes its calls by itself. */
export const unled: Orders = {
  made() {},
  call: (_, given, run) => run(...given),
  generate: (prompt, options, run) => run(prompt, options),
  set() {},
  expectTold() {},
};

/** Tells workers what the first process does. */
export interface Lead {
  /** The orders of a pipeline that is going to be made. */
  ordersOf(model: Model, options: Options): Orders;
  /** Has the workers take part in `readClocks`, and gives what each process then says to all. */
  clocks(): (own: unknown) => Promise<readonly unknown[]>;
  /** Lets the workers end. */
  end(): void;
}

/**
 * Describes a pipeline.
 *
 * @throws {UserError} Where something of it is a function of one's own, which another process does not have.
 */
export function describe(model: Model, { optimizer, parts, ...options }: Options): Description {
  const recipes = { model: recipeOf(model), optimizer: recipeOf(optimizer) };
  if (!recipes.model) {
    throw new UserError(
      `Workers can make the models of createModel(), llama(), bert(), mamba() and resnet() as they are, which ${model.name} is ` +
        "not: run a model of one's own, one in part frozen or with adapters as the same program in all processes",
    );
  }
  if (!recipes.optimizer) {
    throw new UserError(
      "Workers can make the optimizers of sgd(), adamw(), lion() and muon() as they are, with groups matched by text or " +
        "regular expression: run one of one's own as the same program in all processes",
    );
  }
  if (typeof options.recompute === "function") {
    throw new UserError(
      "Workers cannot be told a function: give `recompute` as text for all stages, or as a list of one for each",
    );
  }
  const layers = parts?.flat();
  if (layers && (layers.length !== model.layers.length || layers.some((layer, at) => layer !== model.layers[at]))) {
    throw new UserError("Workers cut models between layers: `parts` must have the model's own layers, in their order");
  }
  return {
    model: recipes.model,
    optimizer: recipes.optimizer,
    ...parts ? { parts: parts.map(({ length }) => length) } : {},
    options,
  };
}
