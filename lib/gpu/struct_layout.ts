/** Where the fields of a WGSL struct lie. */
import { UserError } from "../errors.ts";

/** Types of one word. */
export type Scalar = "u32" | "i32" | "f32";

/** Where a type may start, and what it takes, in words; and what it is made of. */
export interface Layout {
  /** It starts at a multiple of so many words. */
  readonly align: number;
  /** Words. */
  readonly size: number;
  /** Of a struct. */
  readonly fields?: readonly Field[];
  /** Of all else: the type of its numbers. */
  readonly scalar?: Scalar;
  /** How many numbers it holds, one after the other. */
  readonly count?: number;
}

/** A field of a struct. */
export interface Field {
  /** Its name. */
  readonly name: string;
  /** Its first word. */
  readonly at: number;
  /** How it is laid out from there on. */
  readonly layout: Layout;
}

/**
 * The layout of a type that a WGSL source names, in the uniform address space: u32, i32, f32, vectors of these, arrays of
 * vectors of four, and structs. `name` is the kernel's, for messages.
 *
 * @throws {UserError} On another type, or an attribute (`@size`).
 */
export function layoutOf(type: string, source: string, name: string): Layout {
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
  const body = new RegExp(`struct ${type}\\s*\\{([^}]*)\\}`).exec(source)?.[1].replace(/\/\/.*/g, "");
  if (body === undefined) throw new UserError(`${name}: no parameter can be of type ${type}`);
  if (body.includes("@")) throw new UserError(`${name}: no field of ${type} can have an attribute`);
  const fields: Field[] = [];
  let size = 0, align = 1;
  for (const [, field, fieldType] of body.matchAll(/(\w+)\s*:\s*((?:[^,<]|<[^:]*>)+)/g)) {
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
