/**
 * Host and shader meet by name: the `struct Parameters` of a kernel is read from its source, and says in which word of the
 * uniform block each value goes that a dispatch is given.
 */
import { UserError } from "../errors.ts";
import { type Field, type Layout, layoutOf } from "./struct_layout.ts";

/**
 * Values for a kernel's `struct Parameters` by the names of its fields, all of them: a number for a u32, i32 or f32; for a
 * vector or an array of vectors its elements one after the other; for a struct within the struct its own fields.
 */
export interface ParameterValues {
  /** A field, by its name. */
  readonly [field: string]: number | readonly number[] | ParameterValues;
}

/**
 * Writes values as the 32-bit words of a uniform block, padding included; undefined for a kernel without one. The words are
 * good until the next call.
 */
export type Packer = (values: ParameterValues | undefined) => readonly number[] | undefined;

/**
 * A packer for the uniform block of a WGSL source, the variable of type `Parameters`, by the layout rules of WGSL. `name` is
 * the kernel's, for messages: the packer throws a {@link UserError} that names kernel and field where a field is missing, unknown, or
 * has a value that its type cannot hold.
 */
export function packerFor(name: string, wgsl: string): Packer {
  const block = /^[^/]*var<uniform>\s+\w+\s*:\s*(\w+)/m.exec(wgsl);
  if (!block) {
    return (values) => {
      if (values) throw new UserError(`${name} takes no parameters`);
      return undefined;
    };
  }
  const layout = layoutOf(block[1], wgsl, name);
  if (!layout.fields) throw new UserError(`${name}: the uniform block is ${block[1]} where a struct is needed`);
  return compile(name, layout);
}

/**
 * The packer as a program of its own, a line for each field, as `words[0] = values.rows ...`: a loop that looks up the names
 * in objects of any kind takes 0.2 to 0.9 us, as long as the rest of a dispatch; this 0.04 to 0.08.
 */
function compile(name: string, layout: Layout): Packer {
  const lines: string[] = [];
  const slots: Field[] = []; // the lines know them by number
  const visit = (values: string, path: string, fields: readonly Field[], start: number) => {
    const known = fields.map((field) => field.name);
    for (const field of fields) {
      const { scalar, count, fields: inner } = field.layout, at = start + field.at;
      const slot = slots.push({ ...field, name: path + field.name }) - 1;
      const value = `v${slot}`;
      lines.push(`const ${value} = ${values}.${field.name};`);
      if (inner) {
        lines.push(`if (typeof ${value} !== "object") refuse(${slot}, ${value});`);
        visit(value, `${path}${field.name}.`, inner, at);
      } else if (count !== 1) lines.push(`list(${slot}, ${at}, ${value});`);
      else lines.push(`words[${at}] = ${scalar}(${slot}, ${value});`);
    }
    lines.push(`count = 0; for (const _ in ${values}) count++;`);
    lines.push(`if (count !== ${fields.length}) surplus(${values}, ${JSON.stringify(known)}, "${path}");`);
  };
  visit("values", "", layout.fields!, 0);

  const words = new Array<number>(layout.size).fill(0);
  const refuse = (slot: number, value: unknown): never => {
    const { name: field, layout } = slots[slot];
    if (value === undefined) throw new UserError(`${name}: no value for the parameter ${field}`);
    const shown = Array.isArray(value) ? `a list of ${value.length}` : typeof value === "object" ? "a record" : value;
    throw new UserError(`${name}: the parameter ${field} is ${shown} where ${wanted(layout)} is needed`);
  };
  const write = {
    u32: (slot: number, value: number) => value >>> 0 === value ? value : refuse(slot, value),
    i32: (slot: number, value: number) => (value | 0) === value ? value >>> 0 : refuse(slot, value),
    f32(slot: number, value: number) {
      floats[0] = value;
      const fits = typeof value === "number" && (Number.isFinite(floats[0]) || !Number.isFinite(value));
      return fits ? bits[0] : refuse(slot, value);
    },
  };
  const list = (slot: number, at: number, values: readonly number[]) => {
    const { scalar, count } = slots[slot].layout;
    if (!Array.isArray(values) || values.length !== count) refuse(slot, values);
    for (let i = 0; i < values.length; i++) words[at + i] = write[scalar!](slot, values[i]);
  };
  const surplus = (values: object, known: readonly string[], path: string) => {
    const unknown = Object.keys(values).find((key) => !known.includes(key));
    throw new UserError(
      `${name} has no parameter ${path}${unknown}; it has ${known.map((each) => path + each).join(", ")}`,
    );
  };
  const missing = () => {
    throw new UserError(`${name} needs parameters: ${layout.fields!.map((field) => field.name).join(", ")}`);
  };
  const given = { words, refuse, list, surplus, missing, ...write };
  const program = `return (values) => {
    if (!values) missing();
    let count;
    ${lines.join("\n    ")}
    return words;
  };`;
  return new Function(...Object.keys(given), program)(...Object.values(given));
}

const floats = new Float32Array(1);
const bits = new Uint32Array(floats.buffer);

/** A type in words. */
function wanted({ scalar, count, fields }: Layout): string {
  if (fields) return `a record of ${fields.map(({ name }) => name).join(", ")}`;
  return count === 1 ? `a ${scalar}` : `a list of ${count} ${scalar}`;
}
