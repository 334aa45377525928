/**
 * Sources of kernels that say each thing once. A line that begins with `#` is one of these:
 *
 * - `#include "name"`: the text of `kernels/include/name.wgsl`. WGSL takes the declarations of a module in any order, so an
 *   include may use what the file declares.
 * - `#define name text`, `#define name(a, b) text`: from here on `${name}`, or `${name(x, y)}`, stands for the text, in which
 *   `${a}` and `${b}` stand for x and y.
 * - `#repeat i 0 8`: the lines up to `#end` for i = 0, 1, ... 7, in which `${i}` is the number; also for counts that are
 *   expressions, as the next.
 * - `#each "one" "two"`: the lines up to `#end` after each of these includes, which define the words that differ.
 *
 * And in any line `${4 * i + 1}`, an expression of whole numbers, is its value.
 */

interface Macro {
  readonly parameters?: readonly string[];
  readonly text: string;
}

/** The text of `kernels/` + `file` + `.wgsl` with all directives carried out; `read` gives the text of such a file. */
export function preprocess(file: string, read: (file: string) => string): string {
  const out: string[] = [];
  const macros = new Map<string, Macro>();
  carryOut(file, []);
  return out.join("\n");

  /** Carries out a file; `within` are those that it is included from. */
  function carryOut(file: string, within: readonly string[]) {
    const lines = read(file).replace(/\n$/, "").split("\n");
    const fail = (line: number, message: string): never => {
      throw new Error(`kernels/${file}.wgsl:${line + 1}: ${message}`);
    };
    const include = (line: number, name: string) => {
      const included = `include/${name}`;
      if (included === file || within.includes(included)) fail(line, `"${name}" includes itself`);
      try {
        read(included);
      } catch {
        fail(line, `there is no kernels/${included}.wgsl`);
      }
      carryOut(included, [...within, file]);
    };
    /** The line with the `#end` of what begins in `line`. */
    const endOf = (line: number): number => {
      let depth = 0;
      for (let at = line; at < lines.length; at++) {
        if (/^\s*#(repeat|each)\b/.test(lines[at])) depth++;
        if (/^\s*#end\b/.test(lines[at]) && --depth === 0) return at;
      }
      return fail(line, `no #end for ${lines[line].trim()}`);
    };
    const block = (from: number, to: number) => {
      for (let at = from; at < to; at++) {
        const [, directive, rest] = /^\s*#(\S*)\s*(.*?)\s*$/.exec(lines[at]) ?? [];
        const refuse = (form: string) => fail(at, `${lines[at].trim()} where ${form} is needed`);
        const substituted = (text: string) => substitute(text, macros, (message) => fail(at, message));
        if (directive === undefined) out.push(substituted(lines[at]));
        else if (directive === "include") {
          const name = /^"(\w+)"$/.exec(rest)?.[1] ?? refuse('#include "name"');
          include(at, name);
        } else if (directive === "define") {
          const [, name, parameters, text] = /^(\w+)(?:\(([\w, ]*)\))?(?:\s+(.*))?$/.exec(rest) ??
            refuse("#define name text");
          macros.set(
            name,
            parameters === undefined
              ? { text: substituted(text ?? "") }
              : { parameters: parameters.split(/,\s*/), text: text ?? "" },
          );
        } else if (directive === "repeat") {
          const [, name, ...range] = /^(\w+)\s+(\S+)\s+(\S+)$/.exec(rest) ?? refuse("#repeat name from to");
          const [first, end] = range.map((each) => Number(substituted(each)));
          if (!Number.isInteger(first) || !Number.isInteger(end)) refuse("#repeat name from to");
          const last = endOf(at);
          for (let value = first; value < end; value++) {
            macros.set(name, { text: `${value}` });
            block(at + 1, last);
          }
          macros.delete(name);
          at = last;
        } else if (directive === "each") {
          if (!/^("\w+"\s*)+$/.test(rest)) refuse('#each "one" "two"');
          const last = endOf(at);
          for (const [, name] of rest.matchAll(/"(\w+)"/g)) {
            include(at, name);
            block(at + 1, last);
          }
          at = last;
        } else fail(at, directive === "end" ? "#end of nothing" : `unknown directive #${directive}`);
      }
    };
    block(0, lines.length);
  }
}

/** The text with each `${...}` carried out, the innermost first. */
function substitute(text: string, macros: ReadonlyMap<string, Macro>, fail: (message: string) => never): string {
  const inner = /\$\{([^{}]*)\}/;
  for (let found = inner.exec(text); found; found = inner.exec(text)) {
    const before = text.slice(0, found.index), after = text.slice(found.index + found[0].length);
    text = before + valueOf(found[1], macros, fail) + after;
  }
  return text;
}

/** What stands for a name, a name with arguments, or an expression of whole numbers. */
function valueOf(inside: string, macros: ReadonlyMap<string, Macro>, fail: (message: string) => never): string {
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
  const value = /^[\d\s+*/%()-]+$/.test(numbers) ? new Function(`return ${numbers}`)() : undefined;
  return Number.isInteger(value) ? `${value}` : fail(`\${${inside}} is no whole number`);
}
