/** What a model is: a chain of layers that can be cut into stages, and a loss at its end. */
import type { Layer } from "../layers/layer.ts";
import type { Parameter } from "../layers/parameter.ts";
import { sizeOf } from "../tensor.ts";

/** A model of token sequences. */
export interface Model {
  /** For tables, "llama-tiny". */
  readonly name: string;
  /** What the model is made of, for tables and JSON. */
  readonly configuration: Readonly<Record<string, number>>;
  /** Tokens in a sequence. */
  readonly length: number;
  /** Number of different tokens. */
  readonly vocabulary: number;
  /** From token ids to logits. A pipeline may cut between any two. */
  readonly layers: readonly Layer[];
}

/** All trainable parameters, in order. */
export function parametersOf(model: Model): Parameter[] {
  return model.layers.flatMap((layer) => [...layer.parameters]);
}

/** Number of trainable scalars. */
export function countParameters(model: Model): number {
  return parametersOf(model).reduce((sum, parameter) => sum + sizeOf(parameter.shape), 0);
}
