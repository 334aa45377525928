/** Where sources of batches stand: what is saved of them, and looked at when one goes on from it. */
import { UserError } from "../errors.ts";
import { described, expectValue, type Rule, whole } from "../rules.ts";
import { quoted } from "../text.ts";

/**
 * Where a source stands, as plain JSON: how far it has come, and what it draws from, so that no other source goes on from it by
 * mistake. Only for being saved and given back.
 */
export type SourcePosition = Readonly<Record<string, string | number>>;

const record: Rule = {
  right: "a position, as position() returns",
  accepts: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
};
const count = whole(0);

/** The position of a source that is what `identity` says and has come as far as `state` says. */
export function positionOf(
  source: string,
  identity: SourcePosition,
  state: Readonly<Record<string, number>>,
): SourcePosition {
  return { source, ...identity, ...state };
}

/**
 * How far the source had come whose position `from` is; `start`, where there is none.
 *
 * @throws {UserError} When it is the position of a source of another kind, or of one that `identity` is not true of.
 */
export function stateFrom<Name extends string>(
  source: string,
  identity: SourcePosition,
  start: Readonly<Record<Name, number>>,
  from: SourcePosition | undefined,
): Record<Name, number> {
  if (from === undefined) return { ...start };
  expectValue(`${source}: from`, from, record);
  for (const [name, value] of Object.entries({ source, ...identity })) {
    if (from[name] === value) continue;
    const given = from[name] === undefined ? `has no ${name}` : `is of ${name} ${described(from[name])}`;
    throw new UserError(`${source}: the position to go on from ${given}; here it is ${described(value)}`);
  }
  const names = Object.keys(start) as Name[];
  const stray = Object.keys(from).find((name) =>
    name !== "source" && !Object.hasOwn(identity, name) && !names.includes(name as Name)
  );
  if (stray !== undefined) {
    throw new UserError(`${source}: the position to go on from has ${quoted(stray)}, which says nothing here`);
  }
  for (const name of names) expectValue(`${source}: ${name} of the position to go on from`, from[name], count);
  return Object.fromEntries(names.map((name) => [name, from[name]])) as Record<Name, number>;
}
