/** The state of the page as the end of its address: a link is all that somebody else needs. */
import { UserError } from "../errors.ts";
import { quoted, shown } from "../text.ts";
import { formatLists, parseLists } from "./lists.ts";
import { defaults, type Field } from "./settings.ts";
import type { State, Variant } from "./state.ts";

const variants: readonly Variant[] = ["base", "split"];

/** The fields that say something else than at first, a schedule from elsewhere and edits; empty for the first state. */
export function toHash({ values, given, edits }: State): string {
  const parts = new URLSearchParams();
  for (const [field, value] of Object.entries(values)) if (value !== defaults[field as Field]) parts.set(field, value);
  if (given) {
    parts.set("name", given.name);
    parts.set("given", formatLists(given.lists));
  }
  for (const variant of variants) {
    const lists = edits[variant];
    if (lists) parts.set(variant, formatLists(lists));
  }
  return parts.toString();
}

/**
 * Reads what {@link toHash} wrote, with or without a `#` before it. What stands in the fields is read later, like what is typed.
 *
 * @throws {UserError} For a field that there is none of, and lists that are none.
 */
export function fromHash(hash: string): State {
  const values = { ...defaults };
  let name = "link", given: State["given"];
  const edits: { [variant in Variant]?: ReturnType<typeof parseLists> } = {};
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (Object.hasOwn(defaults, key)) values[key as Field] = value;
    else if (key === "name") name = shown(value, 60);
    else if (key === "given") given = { name, lists: parseLists(value) };
    else if (variants.includes(key as Variant)) edits[key as Variant] = parseLists(value);
    else throw new UserError(`The link says something of ${quoted(key)}, which this page knows nothing of`);
  }
  return { values, ...given && { given: { ...given, name } }, edits };
}
