/** What this project promises: every public name, so that a new one, or one less, is a decision. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { test } from "node:test";

const root = new URL("../", import.meta.url);
const read = (file: string) => readFileSync(new URL(file, root), "utf8");
const benches = readdirSync(new URL("bench/", root), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.includes("node_modules")).map((file) => `bench/${file}`);
const paths: Record<string, string> = JSON.parse(read("package.json")).exports;
const expected: Record<string, string[]> = JSON.parse(read("tests/fixtures/public_names.json"));

/** What a face exports, by name: the file that has it, and whether it is given as a type. A face does nothing but export. */
function exportsOf(file: string): Map<string, { from: string; isType: boolean }> {
  const code = read(file).replace(/\/\*\*.*?\*\//gs, "").replace(/^\/\/.*$/gm, "");
  const lists = [...code.matchAll(/export (type )?\{([^}]*)\} from "([^"]+)";/g)];
  assert.equal(code.replace(/export (?:type )?\{[^}]*\} from "[^"]+";/g, "").trim(), "", `${file} only exports`);
  return new Map(
    lists.flatMap(([, types, list, from]) =>
      list.split(",").map((name) => name.trim()).filter(Boolean).map((name) => {
        const isType = types !== undefined || name.startsWith("type ");
        return [name.replace(/^type /, "").split(" as ").pop()!, {
          from: posix.join(posix.dirname(file), from),
          isType,
        }];
      })
    ),
  );
}

for (const [path, file] of Object.entries(paths)) {
  test(`the public names of twobp${path.slice(1)} are those in tests/fixtures/public_names.json`, () => {
    assert.deepEqual([...exportsOf(file).keys()].sort(), expected[path]);
  });
}

test("every folder that has a face is a sub-path, and the first page has few names", () => {
  assert.deepEqual(Object.keys(expected), Object.keys(paths));
  assert.ok(expected["."].length <= 40, `${expected["."].length} names`);
});

test("a name is one thing: sub-paths share types alone, of one file, but for layers and losses named as the operation they run", () => {
  const homes = new Map<string, { from: string; isType: boolean; path: string }>();
  const both = ["./layers", "./losses"];
  const operations = exportsOf(paths["./ops"]);
  for (const path of Object.keys(paths).filter((each) => each !== ".")) {
    for (const [name, { from, isType }] of exportsOf(paths[path])) {
      if (both.includes(path) && !isType && operations.get(name)?.isType === false) continue;
      const home = homes.get(name);
      if (!home) homes.set(name, { from, isType, path });
      else {
        assert.equal(from, home.from, `${name} is another in ${path} than in ${home.path}`);
        assert.ok(isType || home.isType, `${name} is no type, and in ${home.path} and ${path}`);
      }
    }
  }
});

test("benches take what everybody can have: beside the command line's own parts they import sub-paths", () => {
  const internal = new Map([
    ["bench/data.ts", ["files"]], // what a file is to be read as
    ["bench/gpu.ts", ["measure/machine", "output"]], // a folder that is filled part by part, and says where
    ["bench/gpu_day/outcome.ts", ["measure/machine"]],
    ["bench/gpu_day/run_part.ts", ["text"]], // what other programs have said
    ["bench/gpu_day/summary.ts", ["measure/machine"]],
    ["bench/growth.ts", ["gpu/garbage"]],
    ["bench/kept_agreement.ts", ["measure/machine", "output"]], // files that other runs add to
    ["bench/peers/compare.ts", ["gpu/garbage"]],
    ["bench/peers/environment.ts", ["gpu/driver", "gpu/poll"]], // the same adapter for other libraries
    ["bench/training.ts", ["runtime/generate", "training/evaluation"]], // what train() and generateText() do at their ends
    ["bench/training_report.ts", ["report/style"]], // colours of the library's own figures
  ]);
  for (const file of benches) {
    for (const [, from] of read(file).matchAll(/from "(?:\.\.\/)+lib\/([^"]+)\.ts"/g)) {
      const allowed = from.startsWith("cli/") || internal.get(file)?.includes(from);
      assert.ok(allowed, `${file} imports lib/${from}.ts; take it from a sub-path`);
    }
  }
});
