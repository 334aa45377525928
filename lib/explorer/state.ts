/** All that the page shows follows from this: what stands in the form, a schedule from elsewhere, and edits. */
import type { Lists } from "./lists.ts";
import { defaults, type Field, type Values } from "./settings.ts";

/** The two schedules that the page compares: without 2BP, and with it. */
export type Variant = "base" | "split";

/** What the page shows. */
export interface State {
  /** The form. */
  readonly values: Values;
  /** A schedule from a file or a search, in place of that of the form. */
  readonly given?: { readonly name: string; readonly lists: Lists };
  /** Lists that were changed by hand. */
  readonly edits: { readonly [variant in Variant]?: Lists };
}

/** What the page shows at first. */
export const first: State = { values: defaults, edits: {} };

/** Fields that make another schedule: what came from elsewhere goes, and every edit. */
const ofSchedule: readonly Field[] = ["schedule", "devices", "microbatches", "chunks", "ranges"];
/** Fields that place W anew. */
const ofPolicy: readonly Field[] = ["policy", "every", "width"];

/** The state with another value in a field. An edit stays as long as what was edited does: costs and memory price it anew. */
export function withValue(state: State, field: Field, value: string): State {
  const values = { ...state.values, [field]: value };
  if (ofSchedule.includes(field)) return { values, edits: {} };
  if (ofPolicy.includes(field)) return { ...state, values, edits: state.edits.base ? { base: state.edits.base } : {} };
  return { ...state, values };
}

/**
 * The state with a schedule from elsewhere; the sizes in the form become its own. Costs are of its stages, or of so many `ranges` of
 * theirs each.
 */
export function withGiven(state: State, name: string, lists: Lists, microbatches: number, ranges = 1): State {
  const sizes = {
    devices: String(lists.length),
    microbatches: String(microbatches),
    chunks: "",
    ranges: String(ranges),
  };
  const values = { ...state.values, ...sizes };
  return { values, given: { name, lists }, edits: {} };
}

/** The state without what was changed by hand in one of its schedules. */
export function withoutEdit(state: State, variant: Variant): State {
  return { ...state, edits: { ...state.edits, [variant]: undefined } };
}

/** The state with a list changed by hand. */
export function withEdit(state: State, variant: Variant, lists: Lists): State {
  return { ...state, edits: { ...state.edits, [variant]: lists } };
}
