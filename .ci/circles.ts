/** Fails when modules of this project import one another in a circle, and prints the circle. */
import { execFileSync } from "node:child_process";
import process from "node:process";
import { pathToFileURL } from "node:url";

interface Graph {
  modules: { specifier: string; dependencies?: { code?: { specifier: string }; type?: { specifier: string } }[] }[];
}

const root = pathToFileURL(`${process.cwd()}/`).href;
const imports = new Map<string, string[]>();
for (const entry of ["mod.ts", "bench/main.ts", "lib/cli/schedule.ts"]) {
  const graph: Graph = JSON.parse(execFileSync("deno", ["info", "--json", entry], { encoding: "utf8" }));
  for (const { specifier, dependencies = [] } of graph.modules) {
    if (!specifier.startsWith(root)) continue;
    const targets = dependencies.map(({ code, type }) => (code ?? type)?.specifier ?? "");
    imports.set(specifier, targets.filter((target) => target.startsWith(root) && target !== specifier));
  }
}

const done = new Set<string>();
function visit(module: string, path: readonly string[]): void {
  const at = path.indexOf(module);
  if (at >= 0) {
    console.error("Circle: " + [...path.slice(at), module].map((name) => name.slice(root.length)).join(" -> "));
    process.exit(1);
  }
  if (done.has(module)) return;
  for (const target of imports.get(module) ?? []) visit(target, [...path, module]);
  done.add(module);
}
for (const module of imports.keys()) visit(module, []);
console.log(`No circles among ${imports.size} modules.`);
