import assert from "node:assert/strict";
import { test } from "node:test";
import { preprocess } from "../../lib/gpu/preprocess.ts";

/** The lines of `main`, with these files beside it, that are not empty. */
function lines(main: string, files: Record<string, string> = {}): string[] {
  const read = (file: string) => files[file] ?? assert.fail(`no ${file}`);
  return preprocess("kernels/main.wgsl", main, read).text.split("\n").map((line) => line.trim()).filter(Boolean);
}

test("a source without directives stays as it is", () => {
  const text = "// a # in a comment\nfn f() {\n  let x = 1; // $5 {x}\n}";
  assert.equal(preprocess("main", text + "\n", () => "").text, text);
});

test("an include stands for its file, and may include others", () => {
  const files = { "include/a": 'a\n#include "b"\n', "include/b": "b" };
  assert.deepEqual(lines('1\n#include "a"\n2\n  #include "b"', files), ["1", "a", "b", "2", "b"]);
});

test("a repeat writes its lines for each number, also in another repeat", () => {
  const text = `
    #repeat r 0 2
      row \${r}
      #repeat i 1 3
        c\${2 * r + i} += x\${r}[\${i - 1}];
      #end
    #end`;
  assert.deepEqual(lines(text), ["row 0", "c1 += x0[0];", "c2 += x0[1];", "row 1", "c3 += x1[0];", "c4 += x1[1];"]);
  assert.deepEqual(lines("#repeat r 3 3\nnever\n#end\nonce"), ["once"]);
});

test("a define stands for its text from there on, and the last one counts", () => {
  assert.deepEqual(lines("#define V f32\n${V}\n#define V vec4f\n${V}"), ["f32", "vec4f"]);
  assert.deepEqual(lines("#define nothing\n<${nothing}>"), ["<>"]);
  assert.deepEqual(lines("#repeat i 4 5\n#define next ${i + 1}\n${2 * next}\n#end"), ["10"]);
  assert.deepEqual(lines("#define i a\n#repeat i 0 1\n${i}\n#end\n${i}"), ["0", "a"]);
});

test("a define with arguments is given them as they are written", () => {
  assert.deepEqual(lines("#define total(x) total(lane, ${x})\n${total(a + b)} ${total(f(a, b))}"), [
    "total(lane, a + b) total(lane, f(a, b))",
  ]);
  assert.deepEqual(lines("#define V f32\n#define pick(a, b) select(${a}, ${V}(${b}))\n${pick(x, y)}"), [
    "select(x, f32(y))",
  ]);
  assert.deepEqual(
    lines("#define of(T) vec4<${T}>\n#define swap1 swapX\n#repeat n 1 2\n${of(T${n})} ${swap${n}}\n#end"),
    [
      "vec4<T1> swapX",
    ],
  );
});

test("lines are written once under each set of words", () => {
  const files = { "include/one": "#define n\n#define V f32", "include/four": "#define n 4\n#define V vec4f" };
  assert.deepEqual(lines('#each "one" "four"\nfn f${n}(x: ${V})\n#end\nend', files), [
    "fn f(x: f32)",
    "fn f4(x: vec4f)",
    "end",
  ]);
});

test("it is known where each line is from", () => {
  const read = () => "a\n#repeat i 0 2\nb${i}\n#end";
  const { text, origins } = preprocess("main", '#define V f32\n${V}\n#include "a"\nend', read);
  const a = "kernels/include/a.wgsl";
  assert.deepEqual(text.split("\n"), ["f32", "a", "b0", "b1", "end"]);
  assert.deepEqual(origins, ["main:2", `${a}:1`, `${a}:3`, `${a}:3`, "main:4"]);
});

test("what is wrong is an Error with file and line", () => {
  const fails = (text: string, message: string, files = {}) =>
    assert.throws(() => lines(text, files), (error: Error) => {
      assert.equal(error.message, message);
      return true;
    });
  fails("a\n#repaet i 0 2", "kernels/main.wgsl:2: unknown directive #repaet");
  fails("#constructor", "kernels/main.wgsl:1: unknown directive #constructor");
  fails("a\n\n#end", "kernels/main.wgsl:3: #end of nothing");
  fails("#repeat i 0 2\n#repeat j 0 2\n#end", "kernels/main.wgsl:1: no #end for #repeat i 0 2");
  fails("#repeat i 0\n#end", "kernels/main.wgsl:1: #repeat i 0 where #repeat name from to is needed");
  fails("#include missing", 'kernels/main.wgsl:1: #include missing where #include "name" is needed');
  fails('a\n#include "missing"', "kernels/main.wgsl:2: there is no kernels/include/missing.wgsl");
  fails('#each "missing"\n#end', "kernels/main.wgsl:1: there is no kernels/include/missing.wgsl");
  fails("#each\n#end", 'kernels/main.wgsl:1: #each where #each "one" "two" is needed');
  fails("a\n${b}", "kernels/main.wgsl:2: unknown name b");
  fails("#define f(a, b) ${a}\n${f(1)}", "kernels/main.wgsl:2: f takes 2 arguments, not 1");
  fails("${7 / 2}", "kernels/main.wgsl:1: ${7 / 2} is no whole number");
  fails("${2 *}", "kernels/main.wgsl:1: ${2 *} is no whole number");
  fails("let x = ${", "kernels/main.wgsl:1: ${ without }, or with a brace inside");
  fails('#include "a"', "kernels/include/a.wgsl:2: unknown name x", { "include/a": "1\n${x}" });
  const circle = { "include/a": '#include "b"', "include/b": '\n#include "a"' };
  fails('#include "a"', "kernels/include/b.wgsl:2: include/a includes itself", circle);
});
