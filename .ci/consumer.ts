/**
 * Whether the npm package serves projects of other people: it is packed, installed into an empty folder, and used there by Node
 * as plain JavaScript, by Deno, by Bun, by tsc with everything checked, and by a notebook; the links of its pages lead somewhere;
 * and once more without the parts that schedules do not need.
 */
import { execFileSync } from "node:child_process";
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { execute, type Notebook } from "../lib/cli/notebooks.ts";

const mostBytes = 15e6; // of an installation for schedules alone

const program = `
import { adamw, createModel, createPipeline, generate, openDevices, simulate, textSource, twoStage } from "twobp";
import { figurePng, ganttFigure } from "twobp/report";
import { type Schedule, validate } from "twobp/schedules";
import { type BatchSource } from "twobp/train";

const base: Schedule = generate("1f1b-1", { devices: 2 });
const split: Schedule = twoStage(base);
validate(split);
const gain: number = simulate(base).makespan / simulate(split).makespan;
const set = await openDevices(2);
const pipeline = createPipeline(set, createModel("llama-tiny"), { optimizer: adamw() });
const text: BatchSource = textSource(new TextEncoder().encode("to be or not to be, ".repeat(50)), { length: 64, seed: 1 });
const losses: number[] = [];
for (let step = 0; step < 3; step++) losses.push((await pipeline.step(split, await text.next(4))).loss);
pipeline.close();
set.close();
if (!(losses[2] < losses[0])) throw new Error(\`nothing is learnt: \${losses}\`);
const png = await figurePng(ganttFigure(split, simulate(split)));
console.log("works", gain.toFixed(3), png.length > 1000);
`;

/** The same without types, for Node. */
const plain = program
  .replace(/import \{ type BatchSource \}.*\n/, "")
  .replace("type Schedule, ", "")
  .replace(/: (Schedule|number\[\]|number|BatchSource) =/g, " =");

const root = mkdtempSync(join(tmpdir(), "twobp-consumer-"));
try {
  const pack = ["run", "-A", "--no-check", new URL("pack.ts", import.meta.url).pathname, join(root, "package")];
  const tarball = execFileSync(process.execPath, pack, { encoding: "utf8" }).trim().split("\n").pop()!;

  const whole = project("whole", [tarball, "typescript@5.9.3"]);
  const links = new URL("links.ts", import.meta.url).pathname;
  console.log(`README: ${run(whole, process.execPath, "run", "-A", links, "node_modules/twobp").trim()}`);
  writeFileSync(join(whole, "use.ts"), program);
  writeFileSync(join(whole, "use.mjs"), plain);
  works("Node", whole, "node", "use.mjs");
  works("Deno", whole, process.execPath, "run", "-A", "--no-check", "use.ts");
  works("Bun", whole, "npx", "-y", "bun@1.4.5", "use.ts");
  for (const [module, moduleResolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    const compilerOptions = {
      strict: true,
      skipLibCheck: false,
      noEmit: true,
      target: "es2024",
      module,
      moduleResolution,
    };
    writeFileSync(join(whole, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["use.ts"] }));
    run(whole, "npx", "tsc");
    console.log(`tsc, ${moduleResolution}: nothing to complain about`);
  }
  install(whole, "@types/node@20"); // tslab knows neither console nor TextEncoder without
  const cells: Notebook["cells"] = [program].map((source) => ({
    ...{ id: "0", cell_type: "code", metadata: {}, source },
  }));
  const notebook: Notebook = { cells, metadata: {}, nbformat: 4, nbformat_minor: 5 };
  const path = join(whole, "use.ipynb");
  writeFileSync(path, JSON.stringify(notebook));
  await execute(path, notebook);
  expectWorks("A notebook", JSON.stringify(notebook.cells[0].outputs));

  const small = project("small", ["--omit=optional", tarball]);
  const bytes = sizeOf(join(small, "node_modules"));
  const only = `import { generate, simulate } from "twobp/schedules";\n` +
    `console.log("works", simulate(generate("zb-v", { devices: 4 })).makespan);\n`;
  writeFileSync(join(small, "use.mjs"), only);
  works("Schedules alone", small, "node", "use.mjs");
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  console.log(`Installed: ${megabytes(sizeOf(join(whole, "node_modules")))}, for schedules alone ${megabytes(bytes)}`);
  if (bytes > mostBytes) throw new Error(`That is more than ${megabytes(mostBytes)}`);
} finally {
  rmSync(root, { recursive: true, force: true });
}

/** A folder with nothing but these packages. */
function project(name: string, packages: readonly string[]): string {
  const folder = join(root, name);
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  install(folder, ...packages);
  return folder;
}

function install(folder: string, ...packages: readonly string[]): void {
  run(folder, "npm", "install", "--silent", "--no-audit", "--no-fund", ...packages);
}

function run(cwd: string, command: string, ...args: string[]): string {
  return execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

function works(who: string, cwd: string, command: string, ...args: string[]): void {
  expectWorks(who, run(cwd, command, ...args));
}

function expectWorks(who: string, output: string): void {
  if (!output.includes("works")) throw new Error(`${who}: ${output}`);
  console.log(`${who}: works`);
}

function sizeOf(folder: string): number {
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => lstatSync(join(folder, file)));
  return files.reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0);
}
