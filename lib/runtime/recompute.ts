/** Which layers recompute instead of keeping. */
import { UserError } from "../errors.ts";
import type { Layer } from "../layers/layer.ts";
import { type Recompute, recomputed, recomputes } from "../layers/recompute.ts";
import { described } from "../rules.ts";

/** A kind of recomputation for all layers of a stage, or with `:N` for the first N of those that gain by it. */
export type RecomputeText = Recompute | `${Recompute}:${number}`;

/**
 * What to recompute: the same in all stages, or for each stage its own, or decided layer by layer. The forward of the
 * last stage is followed by its backward in most schedules: there "activations" costs as much and gains little.
 */
export type RecomputePolicy =
  | RecomputeText
  | readonly RecomputeText[]
  | ((stage: number, layer: number, layers: number) => Recompute);

/**
 * Reads what a command line says to recompute.
 *
 * @throws {UserError} For anything but `none`, `activations`, `derivatives` and `both`, each perhaps with `:N`, a whole N of 1
 * or more.
 */
export function parseRecompute(text: string): RecomputeText {
  split(text);
  return text as RecomputeText;
}

function split(text: string): { what: Recompute; most: number } {
  const [, what, digits] = /^(\w+)(?::(\d+))?$/.exec(text) ?? [];
  const known = recomputes.find((each) => each === what);
  const most = digits === undefined ? Infinity : Number(digits);
  if (known && most >= 1) return { what: known, most };
  throw new UserError(
    `Unknown recomputation ${described(text)}; there are ${
      recomputes.join(", ")
    }, each perhaps with :N for the first N layers of a stage`,
  );
}

/**
 * The layers of each stage, those that the policy chooses wrapped by `recomputed`.
 *
 * @throws {UserError} When a policy is unknown, or there are policies for another number of stages.
 */
export function withRecompute(
  parts: readonly (readonly Layer[])[],
  policy: RecomputePolicy = "none",
): readonly (readonly Layer[])[] {
  if (typeof policy === "function") {
    return parts.map((layers, stage) =>
      layers.map((layer, index) => recomputed(layer, policy(stage, index, layers.length)))
    );
  }
  if (typeof policy !== "string" && !Array.isArray(policy)) {
    throw new UserError(
      `What to recompute must be ${
        recomputes.map((name) => `"${name}"`).join(", ")
      }, each perhaps with ":N", a list of ` +
        `these by stage, or a function, not ${described(policy)}`,
    );
  }
  if (typeof policy !== "string" && policy.length !== parts.length) {
    throw new UserError(
      `There are recomputation policies for ${policy.length} stages, the pipeline has ${parts.length}`,
    );
  }
  return parts.map((layers, stage) => {
    const { what, most } = split(typeof policy === "string" ? policy : policy[stage]);
    let chosen = 0;
    return layers.map((layer) => {
      const wrapped = recomputed(layer, what);
      return wrapped !== layer && chosen++ >= most ? layer : wrapped;
    });
  });
}

/** Of the stages of {@link withRecompute} those whose I or B recomputes, which an R of a schedule can run ahead of it. */
export function stagesAhead(parts: readonly (readonly Layer[])[]): number[] {
  return parts.flatMap((layers, stage) => layers.some(({ recompute }) => recompute) ? [stage] : []);
}

/** The policy in a word, for tables: "both:2", or by stage "both/none", or "by layer". */
export function formatRecompute(policy: RecomputePolicy = "none"): string {
  if (typeof policy === "function") return "by layer";
  return typeof policy === "string" ? policy : policy.join("/");
}
