/**
 * Fails when modules of this project import one another in a circle, or when a folder imports one that stands above it in
 * the order below, and prints where. ARCHITECTURE shows the same order. A folder's `mod.ts` is no part of it: it is what users see, which
 * nothing of `lib` imports, and may export what stands below.
 */
import { execFileSync } from "node:child_process";
import process from "node:process";
import { pathToFileURL } from "node:url";

/** From the ground up: a folder may import those before it. Files of `lib` itself that need no GPU lie below all folders. */
const order = [
  "lib",
  "lib/schedules",
  "lib/gpu",
  "lib/tensor.ts",
  "lib/ops",
  "lib/layers",
  "lib/losses",
  "lib/models",
  "lib/train",
  "lib/runtime",
  "lib/weights",
  "lib/training",
  "lib/measure",
  "lib/planning",
  "lib/report",
  "lib/explorer",
  "lib/cli",
  "mod.ts",
  "bench",
];

interface Graph {
  modules: { specifier: string; dependencies?: { code?: { specifier: string }; type?: { specifier: string } }[] }[];
}

const root = pathToFileURL(`${process.cwd()}/`).href;
const isOurs = (specifier: string) => specifier.startsWith(root) && !specifier.includes("/node_modules/");
const imports = new Map<string, string[]>();
for (
  const entry of [
    "mod.ts",
    "lib/ops/mod.ts",
    "lib/layers/mod.ts",
    "lib/train/mod.ts",
    "bench/main.ts",
    "lib/cli/schedule.ts",
    "lib/cli/train.ts",
    "lib/cli/sample.ts",
    "lib/cli/doctor.ts",
    "lib/cli/doctor_inside.ts",
    "lib/cli/explorer.ts",
    "lib/explorer/main.ts",
    "lib/explorer/run_worker.ts",
  ]
) {
  const graph: Graph = JSON.parse(
    execFileSync("deno", ["info", "--json", entry], { encoding: "utf8", maxBuffer: 2 ** 28 }),
  );
  for (const { specifier, dependencies = [] } of graph.modules) {
    if (!isOurs(specifier)) continue;
    const targets = dependencies.map(({ code, type }) => (code ?? type)?.specifier ?? "");
    imports.set(
      specifier.slice(root.length),
      targets.filter((target) => isOurs(target) && target !== specifier).map((each) => each.slice(root.length)),
    );
  }
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}

/** Where a module stands in the order. */
function heightOf(module: string): number {
  if (/^lib\/[^/]+\/mod\.ts$/.test(module)) return order.indexOf("mod.ts");
  const inLib = /^lib\/[^/]+\//.exec(module)?.[0].slice(0, -1);
  const place = inLib ?? (order.includes(module) ? module : module.slice(0, module.lastIndexOf("/")));
  const height = order.findIndex((each) => place === each || place.startsWith(`${each}/`) && each !== "lib");
  return height < 0 ? fail(`${module} is in none of the folders ${order.join(", ")}`) : height;
}
for (const [module, targets] of imports) {
  for (const target of targets) {
    if (heightOf(target) > heightOf(module)) {
      fail(`Against the order of the folders: ${module} imports ${target}; it is ${order.join(", ")}`);
    }
  }
}

const done = new Set<string>();
function visit(module: string, path: readonly string[]): void {
  const at = path.indexOf(module);
  if (at >= 0) fail("Circle: " + [...path.slice(at), module].join(" -> "));
  if (done.has(module)) return;
  for (const target of imports.get(module) ?? []) visit(target, [...path, module]);
  done.add(module);
}
for (const module of imports.keys()) visit(module, []);
console.log(`No circles among ${imports.size} modules, and every folder imports only what stands below it.`);
