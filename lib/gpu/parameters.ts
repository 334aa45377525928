/**
 * Host and shader meet by name: the `struct Parameters` of a kernel is read from its source, and says in which word of the
 * uniform block each value goes that a dispatch is given.
 */

/**
 * Values for a kernel's `struct Parameters` by the names of its fields, all of them: a number for a u32, i32 or f32; for a
 * vector or an array of vectors its elements one after the other; for a struct within the struct its own fields.
 */
export interface ParameterValues {
  readonly [field: string]: number | readonly number[] | ParameterValues;
}

/**
 * Writes values as the 32-bit words of a uniform block, padding included; undefined for a kernel without one. The words are
 * good until the next call.
 */
export type Packer = (values: ParameterValues | undefined) => readonly number[] | undefined;

type Scalar = "u32" | "i32" | "f32";

/** Where a type may start, and what it takes, in words; and what it is made of. */
interface Layout {
  readonly align: number;
  readonly size: number;
  /** Of a struct. */
  readonly fields?: readonly Field[];
  /** Of all else: so many numbers of this type. A lone one is a number for the host, others are a list. */
  readonly scalar?: Scalar;
  readonly count?: number;
}

interface Field {
  readonly name: string;
  /** Its first word. */
  readonly at: number;
  readonly layout: Layout;
}

/**
 * A packer for the uniform block of a WGSL source, the variable of type `Parameters`, by the layout rules of WGSL. `name` is
 * the kernel's, for messages: the packer throws an Error that names kernel and field where a field is missing, unknown, or
 * has a value that its type cannot hold.
 */
export function packerFor(name: string, wgsl: string): Packer {
  const source = wgsl.replace(/\/\/.*/g, "");
  const block = /var<uniform>\s+\w+\s*:\s*(\w+)/.exec(source);
  if (!block) {
    return (values) => {
      if (values) throw new Error(`${name} takes no parameters`);
      return undefined;
    };
  }
  const layout = layoutOf(block[1], source, name);
  if (!layout.fields) throw new Error(`${name}: the uniform block is ${block[1]} where a struct is needed`);
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
    if (value === undefined) throw new Error(`${name}: no value for the parameter ${field}`);
    const shown = Array.isArray(value) ? `a list of ${value.length}` : typeof value === "object" ? "a record" : value;
    throw new Error(`${name}: the parameter ${field} is ${shown} where ${wanted(layout)} is needed`);
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
    throw new Error(
      `${name} has no parameter ${path}${unknown}; it has ${known.map((each) => path + each).join(", ")}`,
    );
  };
  const missing = () => {
    throw new Error(`${name} needs parameters: ${layout.fields!.map((field) => field.name).join(", ")}`);
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

function layoutOf(type: string, source: string, name: string): Layout {
  const scalar = /^(u32|i32|f32)$/.exec(type);
  if (scalar) return { align: 1, size: 1, scalar: scalar[1] as Scalar, count: 1 };
  const vector = /^vec([234])(?:<(\w+)>|([uif]))$/.exec(type);
  if (vector) {
    const count = Number(vector[1]);
    const scalar = vector[2] ?? { u: "u32", i: "i32", f: "f32" }[vector[3]];
    if (/^(u32|i32|f32)$/.test(scalar)) {
      return { align: count === 2 ? 2 : 4, size: count, scalar: scalar as Scalar, count };
    }
  }
  const array = /^array<(.+),(\w+)>$/.exec(type);
  if (array) {
    const element = layoutOf(array[1], source, name);
    const length = constant(array[2], source);
    if (element.scalar && element.size === 4 && length > 0) { // others are padded in a uniform block, or refused
      return { ...element, size: length * element.size, count: length * element.size };
    }
  }
  const body = new RegExp(`struct ${type}\\s*\\{([^}]*)\\}`).exec(source);
  if (!body) throw new Error(`${name}: no parameter can be of type ${type}`);
  const fields: Field[] = [];
  let size = 0, align = 1;
  for (const [, field, fieldType] of body[1].matchAll(/(\w+)\s*:\s*((?:[^,<]|<[^:]*>)+)/g)) {
    const layout = layoutOf(fieldType.replace(/\s/g, ""), source, name);
    const at = roundUp(size, layout.align);
    fields.push({ name: field, at, layout });
    size = at + layout.size;
    align = Math.max(align, layout.align);
  }
  return { align, size: roundUp(size, align), fields };
}

/** The value of a number, or of a `const` of the source. */
function constant(text: string, source: string): number {
  const value = new RegExp(`const ${text}\\b[^=]*=\\s*(\\w+)`).exec(source)?.[1] ?? text;
  return parseInt(value);
}

function roundUp(size: number, align: number): number {
  return Math.ceil(size / align) * align;
}
