/**
 * Sources of kernels that say each thing once. A line that begins with `#` is a directive:
 *
 * - `#include "name"`: the text of `kernels/include/name.wgsl`. WGSL takes the declarations of a module in any order, so an
 *   include may use what the file declares.
 * - `#define name text` and `#define name(a, b) text`: from here on `${name}` and `${name(x, y)}` stand for the text, in which
 *   `${a}` stands for x.
 * - `#repeat i 0 8`: the lines up to `#end` for i = 0 to 7, in which `${i}` is the number.
 * - `#each "one" "two"`: the lines up to `#end` after each of these includes, which define the words that differ.
 *
 * In any line `${4 * i + 1}`, an expression of whole numbers, is its value.
 */

import { UserError } from "../errors.ts";

interface Macro {
  readonly parameters?: readonly string[];
  readonly text: string;
}

/** A text with all directives carried out. */
export interface Expanded {
  /** The text. */
  readonly text: string;
  /** Where each of its lines is from, as "kernels/norm.wgsl:12". */
  readonly origins: readonly string[];
}

/**
 * Carries out the directives of a kernel's text, which messages call `name`; `read("include/" + name)` gives an include.
 *
 * @throws {UserError} Where a directive is wrong, with its line.
 */
export function preprocess(name: string, text: string, read: (file: string) => string): Expanded {
  const out: string[] = [], origins: string[] = [];
  carryOut(name, text, { within: [], read, macros: new Map(), out, origins });
  return { text: out.join("\n"), origins };
}

/** What the files of one kernel share. */
interface Work {
  /** Those that the one in hand is included from. */
  readonly within: readonly string[];
  readonly read: (file: string) => string;
  readonly macros: Map<string, Macro>;
  /** Lines that are done. */
  readonly out: string[];
  /** Where they are from. */
  readonly origins: string[];
}

function carryOut(where: string, text: string, work: Work) {
  const { within, read, macros, out, origins } = work;
  const lines = text.replace(/\n$/, "").split("\n");

  const failAt = (at: number) => (message: string): never => {
    throw new UserError(`${where}:${at + 1}: ${message}`);
  };
  /** The parts of a directive's line, which has the form that `needed` shows. */
  const parsed = (at: number, form: RegExp, needed: string): string[] => {
    const line = lines[at].trim();
    return form.exec(line) ?? failAt(at)(`${line} where ${needed} is needed`);
  };
  const substituted = (at: number, text: string) => substitute(text, macros, failAt(at));
  const include = (at: number, file: string) => {
    const included = `kernels/include/${file}.wgsl`;
    if (included === where || within.includes(included)) failAt(at)(`include/${file} includes itself`);
    let text = "";
    try {
      text = read(`include/${file}`);
    } catch {
      failAt(at)(`there is no ${included}`);
    }
    carryOut(included, text, { ...work, within: [...within, where] });
  };
  const endOf = (start: number): number => {
    let depth = 0;
    for (let at = start; at < lines.length; at++) {
      if (/^\s*#(repeat|each)\b/.test(lines[at])) depth++;
      if (/^\s*#end\b/.test(lines[at]) && --depth === 0) return at;
    }
    return failAt(start)(`no #end for ${lines[start].trim()}`);
  };

  /** Each is given the number of its line, and returns that of its last one. */
  const directives: Record<string, (at: number) => number> = {
    include(at) {
      const [, name] = parsed(at, /^#include "(\w+)"$/, '#include "name"');
      include(at, name);
      return at;
    },
    define(at) {
      const form = /^#define (\w+)(?:\(([\w, ]+)\))?(?:\s+(.*))?$/;
      const [, name, parameters, text = ""] = parsed(at, form, "#define name text");
      if (parameters) macros.set(name, { parameters: parameters.split(/,\s*/), text });
      else macros.set(name, { text: substituted(at, text) });
      return at;
    },
    repeat(at) {
      const needed = "#repeat name from to";
      const [, name, from, to] = parsed(at, /^#repeat (\w+) (\d+) (\d+)$/, needed);
      const end = endOf(at), before = macros.get(name);
      for (let value = Number(from); value < Number(to); value++) {
        macros.set(name, { text: `${value}` });
        block(at + 1, end);
      }
      if (before) macros.set(name, before);
      else macros.delete(name);
      return end;
    },
    each(at) {
      const [line] = parsed(at, /^#each( "\w+")+$/, '#each "one" "two"');
      const end = endOf(at);
      for (const [, name] of line.matchAll(/"(\w+)"/g)) {
        include(at, name);
        block(at + 1, end);
      }
      return end;
    },
    end: (at) => failAt(at)("#end of nothing"),
  };

  function block(from: number, to: number) {
    for (let at = from; at < to; at++) {
      const name = /^\s*#(\w*)/.exec(lines[at])?.[1];
      if (name === undefined) {
        out.push(substituted(at, lines[at]));
        origins.push(`${where}:${at + 1}`);
      } else if (!Object.hasOwn(directives, name)) failAt(at)(`unknown directive #${name}`);
      else at = directives[name](at);
    }
  }
  block(0, lines.length);
}

/** What ends a file's work with a message; it adds where. */
type Fail = (message: string) => never;

/** The text with each `${...}` carried out, the innermost first. */
function substitute(text: string, macros: ReadonlyMap<string, Macro>, fail: Fail): string {
  const inner = /\$\{([^{}]*)\}/;
  for (let found = inner.exec(text); found; found = inner.exec(text)) {
    const before = text.slice(0, found.index), after = text.slice(found.index + found[0].length);
    text = before + valueOf(found[1], macros, fail) + after;
  }
  return text.includes("${") ? fail("${ without }, or with a brace inside") : text;
}

/** What stands for a name, a name with arguments, or an expression of whole numbers. */
function valueOf(inside: string, macros: ReadonlyMap<string, Macro>, fail: Fail): string {
  const [, name, given] = /^(\w+)(?:\((.*)\))?$/.exec(inside) ?? [];
  const macro = macros.get(name);
  if (macro && (given === undefined) === (macro.parameters === undefined)) {
    const { parameters = [], text } = macro;
    const values = parameters.length > 1 ? given.split(/,\s*/) : [given]; // a lone one may hold commas
    if (given !== undefined && values.length !== parameters.length) {
      fail(`${name} takes ${parameters.length} arguments, not ${values.length}`);
    }
    const own = parameters.map((parameter, i) => [parameter, { text: values[i] }] as const);
    return substitute(text, new Map([...macros, ...own]), fail);
  }
  const numbers = inside.replace(/[A-Za-z_]\w*/g, (name) => macros.get(name)?.text ?? fail(`unknown name ${name}`));
  return valueOfNumbers(numbers) ?? fail(`\${${inside}} is no whole number`);
}

function valueOfNumbers(expression: string): string | undefined {
  if (!/^[\d\s+*/%()-]+$/.test(expression)) return undefined;
  try {
    const value = new Function(`return ${expression}`)();
    return Number.isInteger(value) ? `${value}` : undefined;
  } catch {
    return undefined; // no expression
  }
}
