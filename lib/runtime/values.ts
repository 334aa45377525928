/** Values that are set from outside, by name. */
import { UserError } from "../errors.ts";
import { described } from "../rules.ts";
import { sizeOf } from "../tensor.ts";

/**
 * What each item is to hold, out of `values` by name; one whose name is in `originals` holds what the original does. Where `values` are
 * `partial`, items without any are left out.
 *
 * @throws {UserError} When a name is missing or unknown, or values are no Float32Array of the right size.
 */
export function arraysFor<Item extends { readonly name: string; readonly shape: readonly number[] }>(
  kind: string,
  model: string,
  items: readonly Item[],
  values: ReadonlyMap<string, Float32Array>,
  originals: ReadonlyMap<string, string> = new Map(),
  partial = false,
): (readonly [Item, Float32Array])[] {
  if (!(values instanceof Map)) {
    throw new UserError(`New ${kind}s must be a Map of Float32Arrays by name, not ${described(values)}`);
  }
  const names = new Set(items.map(({ name }) => name));
  const unknown = [...values.keys()].find((name) => !names.has(name));
  if (unknown !== undefined) throw new UserError(`${model} has no ${kind} "${unknown}"`);
  const given = (name: string) => values.get(originals.get(name) ?? name);
  return items.filter(({ name }) => !partial || given(name)).map((item) => {
    const { name, shape } = item;
    const array = given(name);
    if (!array) throw new UserError(`There are no values for ${kind} "${name}" of ${model}`);
    // Another type of array would be written byte by byte, beyond the end.
    if (!(array instanceof Float32Array)) {
      throw new UserError(`The values of ${kind} "${name}" must be a Float32Array, not ${described(array)}`);
    }
    if (array.length === sizeOf(shape)) return [item, array];
    const start = kind[0].toUpperCase() + kind.slice(1);
    throw new UserError(`${start} "${name}" is [${shape}], which ${array.length} values do not fill`);
  });
}

/**
 * Refuses numbers that are too large for f16, in which frozen parameters are held in mixed precision.
 *
 * @throws {UserError} Names the parameter and the first such number.
 */
export function expectHalves(name: string, values: Float32Array): void {
  const large = values.find((value) => Math.abs(value) >= 65_520);
  if (large === undefined) return;
  throw new UserError(`Frozen parameter "${name}" is held in f16 in mixed precision, which cannot hold its ${large}`);
}
