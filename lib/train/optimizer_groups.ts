/** Settings of an optimizer that hold for some parameters and not for others. */
import { UserError } from "../errors.ts";
import { matches } from "../matching.ts";
import { described } from "../rules.ts";

/** Which parameters settings of their own hold for. */
export interface Matching {
  /** Finds them by name, "blocks.0.mlp.down.weight": an expression that is found in it, or a function that says yes. */
  readonly match: RegExp | ((name: string) => boolean);
}

/** Parameters that an optimizer treats in their own way. */
export interface OptimizerGroup<Spec> extends Matching {
  /** How. */
  readonly spec: Spec;
}

/** An optimizer's settings that may have groups. */
export interface Grouped<Spec> {
  /** For messages. */
  readonly name: string;
  /** Parameters with settings of their own: the first group that matches a name has it, and what none matches is treated as all. */
  readonly groups?: readonly OptimizerGroup<Spec>[];
}

/** How an optimizer treats the parameter of this name: as the first group that has it, or as all others. */
export function specFor<Spec extends Grouped<Spec>>(spec: Spec, name: string): Spec {
  return spec.groups?.find(({ match }) => matches(match, name))?.spec ?? spec;
}

/**
 * Refuses groups that would do nothing: an expression that is mistyped would leave its parameters to the other settings, and nobody told.
 *
 * @param names Of all parameters that are trained.
 * @throws {UserError} Names the group, and how many parameters earlier ones have taken of those that it matches.
 */
export function checkGroups({ name: optimizer, groups = [] }: Grouped<unknown>, names: readonly string[]): void {
  const firsts = names.map((name) => groups.findIndex(({ match }) => matches(match, name)));
  for (const [index, { match }] of groups.entries()) {
    if (firsts.includes(index)) continue;
    const taken = names.filter((name) => matches(match, name)).length;
    const shown = match instanceof RegExp ? String(match) : described(match);
    throw new UserError(
      `${optimizer}: groups[${index}], ${shown}, has no parameter: ` +
        (taken > 0
          ? `the ${taken} that it matches are in earlier groups, of which the first holds`
          : `it matches none that is trained; there are ${some(names)}`),
    );
  }
}

function some(names: readonly string[]): string {
  if (names.length === 0) return "none";
  return names.slice(0, 3).join(", ") + (names.length > 3 ? ` and ${names.length - 3} more` : "");
}
