/**
 * JSON out of files from anywhere: what would take gigabytes to parse is refused before it is, and so is a name that occurs
 * twice, of which JSON.parse would take the last and hide a tensor.
 */

import { quoted } from "../text.ts";

/** Brackets within brackets; a header has three, a configuration hardly more. */
const deepest = 32;

/** Values in all; a header has some ten for each tensor, and the largest models have some ten thousand tensors a file. */
const mostValues = 1_000_000;

/**
 * Parses a text of UTF-8.
 *
 * @throws {Error} When it is not UTF-8, not JSON, too deep or too much of it, or an object has a name twice.
 */
export function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("is not UTF-8");
  }
  checkExtent(bytes);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("is not JSON");
  }
  checkNames(text);
  return value;
}

/** An object, not null and not a list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const [quote, backslash, comma, colon] = ['"', "\\", ",", ":"].map((character) => character.charCodeAt(0));
const [openList, closeList, openObject, closeObject] = ["[", "]", "{", "}"].map((each) => each.charCodeAt(0));

/** Counts levels and values; the text may be anything. */
function checkExtent(bytes: Uint8Array): void {
  let depth = 0, values = 1, inText = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (inText) {
      if (byte === backslash) at++;
      else if (byte === quote) inText = false;
    } else if (byte === quote) inText = true;
    else if (byte === openList || byte === openObject) {
      if (++depth > deepest) throw new Error(`nests brackets more than ${deepest} deep`);
    } else if (byte === closeList || byte === closeObject) depth--;
    else if (byte === comma && ++values > mostValues) throw new Error(`has more than ${mostValues} values`);
  }
}

/** Walks a text known to be JSON: outside of strings only braces and colons matter. */
function checkNames(text: string): void {
  const open: Set<string>[] = [];
  let start = 0, end = 0; // of the last string
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case openObject:
        open.push(new Set());
        break;
      case closeObject:
        open.pop();
        break;
      case quote:
        start = at++;
        while (text.charCodeAt(at) !== quote) at += text.charCodeAt(at) === backslash ? 2 : 1;
        end = at + 1;
        break;
      case colon: {
        const name: string = JSON.parse(text.slice(start, end));
        const names = open[open.length - 1];
        if (names.has(name)) throw new Error(`has ${quoted(name)} twice`);
        names.add(name);
      }
    }
  }
}
