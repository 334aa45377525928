/** What this project promises: every public name, so that a new one, or one less, is a decision. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const root = new URL("../", import.meta.url);
const read = (file: string) => readFileSync(new URL(file, root), "utf8");
const benches = readdirSync(new URL("bench/", root), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.includes("node_modules")).map((file) => `bench/${file}`);
const paths: Record<string, string> = JSON.parse(read("package.json")).exports;
const expected: Record<string, string[]> = JSON.parse(read("tests/fixtures/public_names.json"));

/** The names that a face exports, in order; it does nothing but export from other files. */
function namesOf(file: string): string[] {
  const code = read(file).replace(/\/\*\*.*?\*\//gs, "");
  const lists = [...code.matchAll(/export (?:type )?\{([^}]*)\} from "[^"]+";/g)];
  assert.equal(code.replace(/export (?:type )?\{[^}]*\} from "[^"]+";/g, "").trim(), "", `${file} only exports`);
  return lists.flatMap(([, list]) => list.split(",")).map((name) => name.trim().replace(/^type /, ""))
    .filter(Boolean).map((name) => name.split(" as ").pop()!).sort();
}

for (const [path, file] of Object.entries(paths)) {
  test(`the public names of twobp${path.slice(1)} are those in tests/fixtures/public_names.json`, () => {
    assert.deepEqual(namesOf(file), expected[path]);
  });
}

test("every folder that has a face is a sub-path, and the first page has few names", () => {
  assert.deepEqual(Object.keys(expected), Object.keys(paths));
  assert.ok(expected["."].length <= 40, `${expected["."].length} names`);
});

test("a name has one home: no two sub-paths export the same, but for layers and losses named as the operation they run", () => {
  const homes = new Map<string, string>();
  const both = ["./layers", "./losses"];
  const twice = new Set(both.flatMap((path) => expected[path]).filter((name) => expected["./ops"].includes(name)));
  for (const path of Object.keys(paths).filter((each) => each !== ".")) {
    for (const name of expected[path]) {
      if (both.includes(path) && twice.has(name)) continue;
      assert.equal(homes.get(name), undefined, `${name} is in ${homes.get(name)} and ${path}`);
      homes.set(name, path);
    }
  }
});

test("benches take what everybody can have: beside the command line's own parts they import sub-paths", () => {
  const internal = new Map([
    ["bench/data.ts", ["files"]], // what a file is to be read as
    ["bench/growth.ts", ["gpu/garbage"]],
    ["bench/peers/compare.ts", ["gpu/garbage"]],
    ["bench/peers/environment.ts", ["gpu/driver", "gpu/poll"]], // the same adapter for other libraries
  ]);
  for (const file of benches) {
    for (const [, from] of read(file).matchAll(/from "(?:\.\.\/)+lib\/([^"]+)\.ts"/g)) {
      const allowed = from.startsWith("cli/") || internal.get(file)?.includes(from);
      assert.ok(allowed, `${file} imports lib/${from}.ts; take it from a sub-path`);
    }
  }
});
