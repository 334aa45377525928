/** JSON lines: each line of a file is an object with a text in one of its fields. */
import { UserError } from "../errors.ts";
import { described } from "../rules.ts";
import { firstLine, quoted, shown } from "../text.ts";
import { type Block, blockBytes, stretches, textOf } from "./file_blocks.ts";

const newline = 0x0a;

/**
 * The documents of a file of JSON lines: the text in `field` of each. Empty lines are none.
 *
 * @throws {UserError} When it cannot be read, has no documents, is not UTF-8, or a line is no object with a text in `field`: which.
 */
export async function jsonLineBlocks(path: string, field: string, size: number = blockBytes): Promise<Block[]> {
  const blocks: Block[] = [];
  let before = 0; // lines
  const cut = (bytes: Uint8Array) => bytes.lastIndexOf(newline) + 1;
  for await (const { start, bytes, digest, again } of stretches(path, size, cut, "a line")) {
    const first = before + 1;
    const open = (bytes: Uint8Array) => {
      const lines = linesOf(bytes);
      return { lines, text: (line: Line) => documentOf(path, field, bytes, line, start, first) };
    };
    const { lines, text } = open(bytes);
    lines.forEach(text); // the errors of a file are found before anything is made of it
    before = first - 1 + newlines(bytes);
    const documents = lines.length;
    if (documents === 0) continue;
    blocks.push({
      ...{ bytes: bytes.length, documents, digest },
      async read() {
        const { lines, text } = open(await again());
        return (document) => text(lines[document]);
      },
    });
  }
  if (blocks.length === 0) throw new UserError(`${shown(path)} has no lines with something in them`);
  return blocks;
}

/** A line with something in it: where it lies, and its number in the block, from 0. */
interface Line {
  readonly start: number;
  readonly end: number;
  readonly number: number;
}

function linesOf(bytes: Uint8Array): Line[] {
  const lines: Line[] = [];
  for (let start = 0, number = 0; start < bytes.length; number++) {
    const at = bytes.indexOf(newline, start);
    const end = at < 0 ? bytes.length : at;
    let filled = start;
    while (filled < end && isBlank(bytes[filled])) filled++;
    if (filled < end) lines.push({ start, end, number });
    start = end + 1;
  }
  return lines;
}

const isBlank = (byte: number) => byte === 0x20 || byte === 0x09 || byte === 0x0d;

function newlines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(newline); at >= 0; at = bytes.indexOf(newline, at + 1)) count++;
  return count;
}

function documentOf(
  path: string,
  field: string,
  bytes: Uint8Array,
  { start, end, number }: Line,
  offset: number,
  first: number,
): string {
  const line = textOf(path, bytes.subarray(start, end), offset + start);
  const place = `Line ${first + number} of ${shown(path)}`;
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new UserError(`${place} is not JSON: ${firstLine(error)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(`${place} must be an object with a text in ${quoted(field)}, not ${described(value)}`);
  }
  if (!Object.hasOwn(value, field)) {
    const names = Object.keys(value).slice(0, 8).map(quoted).join(", ") || "nothing";
    throw new UserError(`${place} has no ${quoted(field)}; it has ${names}. The option \`field\` says where texts are`);
  }
  const text = (value as Record<string, unknown>)[field];
  if (typeof text !== "string") {
    throw new UserError(`${place}: ${quoted(field)} must be a text, not ${described(text)}`);
  }
  return text;
}
