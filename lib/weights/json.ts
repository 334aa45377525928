/** JSON in which every name may occur once: JSON.parse takes the last of several, and so would hide a tensor. */

import { quoted } from "../text.ts";

/**
 * Parses a text of UTF-8.
 *
 * @throws {Error} When it is not UTF-8, not JSON, or an object has a name twice.
 */
export function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("is not UTF-8");
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("is not JSON");
  }
  checkNames(text);
  return value;
}

/** Walks a text known to be JSON: outside of strings only braces and colons matter. */
function checkNames(text: string): void {
  const open: Set<string>[] = [];
  let last = "";
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "{") open.push(new Set());
    else if (character === "}") open.pop();
    else if (character === '"') {
      const start = at++;
      while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
      last = text.slice(start, at + 1);
    } else if (character === ":") {
      const name: string = JSON.parse(last);
      const names = open[open.length - 1];
      if (names.has(name)) throw new Error(`has ${quoted(name)} twice`);
      names.add(name);
    }
  }
}
