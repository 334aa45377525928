/**
 * Runs the examples of README, `docs/`, docstrings and `examples/`: those of docstrings as modules of one program for each folder,
 * the others each as a program of its own. A block of `text` right after one is what it prints, and is compared. File names as arguments run the examples of these alone: `.ci/examples.ts docs/tutorial.md`.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { difference } from "./printed.ts";

const listed = (...patterns: string[]) =>
  execFileSync("git", ["ls-files", ...patterns], { encoding: "utf8" }).split("\n").filter(Boolean);

const folder = resolve(mkdtempSync(".ci/examples-")); // inside the tree, where "twobp" is found; what they write goes with it
const chosen = process.argv.slice(2);
const isChosen = (file: string) => chosen.length === 0 || chosen.includes(file);
let count = 0, compared = 0;
/** By folder of `lib/` the examples of docstrings: loading the library takes longer than most of them. */
const together = new Map<string, { file: string; code: string }[]>();

function runTogether(under: string, examples: readonly { file: string; code: string }[]): void {
  const imports = examples.map(({ code }, at) => {
    const name = `${under}-${at}.ts`;
    writeFileSync(join(folder, name), code);
    return `at = ${at}; await import(${JSON.stringify(`./${name}`)});`;
  });
  const path = join(folder, `${under}.ts`);
  const say = 'process.on("exit", (code) => code === 0 || console.error(`\n${at}`));';
  writeFileSync(path, `import process from "node:process";\nlet at = 0;\n${say}\n${imports.join("\n")}\n`);
  const { status, stderr } = spawnSync(process.execPath, ["run", "-A", "--no-check", path], {
    cwd: folder,
    encoding: "utf8",
  });
  count += examples.length;
  if (status === 0) return;
  const { file, code } = examples[Number(/\n(\d+)\n$/.exec(stderr)?.[1] ?? 0)];
  throw new Error(`The example of ${file} fails: ${stderr}\n${code}`);
}

function run(file: string, code: string, name = `${count + 1}.ts`, expected?: string): void {
  count++;
  const path = join(folder, name);
  writeFileSync(path, code);
  const { status, stdout, stderr } = spawnSync(process.execPath, ["run", "-A", "--no-check", path], {
    cwd: folder,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`The example of ${file} fails: ${stderr}\n${code}`);
  if (expected === undefined) return;
  compared++;
  const found = difference(expected, stdout);
  if (found) throw new Error(`An example of ${file} prints something else: ${found}\n${code}`);
}

try {
  // What an example reads.
  for (const [image, name] of [["rgb_8.png", "cats/one.png"], ["ycc_420.jpg", "dogs/two.jpg"]]) {
    cpSync(`tests/fixtures/images/${image}`, join(folder, "photos", name));
  }
  for (const name of ["config.json", "model.safetensors"]) {
    cpSync(`tests/fixtures/llama3/${name}`, join(folder, "Llama-3.2-1B", name)); // a tiny one of that kind
  }
  cpSync("tests/fixtures/tokenizers/llama3.json", join(folder, "tokenizer.json"));
  for (const name of ["finetune", "finetune.txt"]) {
    cpSync(`tests/fixtures/${name}`, join(folder, "tests/fixtures", name), { recursive: true });
  }
  cpSync("tests/fixtures/tokenizers/llama3.json", join(folder, "Llama-3.2-1B", "tokenizer.json"));
  const story = (i: number) =>
    `Story ${i}: ${"each rank waits for the one before it, and the last one for all. ".repeat(5)}`;
  const stories = Array.from({ length: 100 }, (_, i) => JSON.stringify({ text: story(i) }) + "\n");
  writeFileSync(join(folder, "stories.jsonl"), stories.join(""));
  for (const file of listed("README.md", "mod.ts", "docs/*.md", "lib/**/*.ts").filter(isChosen)) {
    const blocks = readFileSync(file, "utf8").matchAll(/```ts\n(.*?)```(?:\s*```text\n(.*?)```)?/gs);
    for (const [, block, expected] of blocks) {
      const code = file.endsWith(".md") ? block : block.replace(/^ *\* ?/gm, "");
      if (!/ from "twobp[/"]/.test(code)) continue; // a fragment
      const under = /^lib\/(\w+)\//.exec(file)?.[1];
      if (under && expected === undefined) {
        together.set(under, [...together.get(under) ?? [], { file, code }]);
        continue;
      }
      run(file, code, /^\/\/ (\w+\.ts)\n/.exec(code)?.[1], expected); // a named one is a file that later examples import
    }
  }
  for (const [under, examples] of together) runTogether(under, examples);
  const whole = listed("examples/*.ts");
  if (whole.length === 0) throw new Error("There is nothing in examples");
  for (const file of whole.filter(isChosen)) {
    const code = readFileSync(file, "utf8");
    const lines = code.trimEnd().split("\n").length;
    if (!code.startsWith("/**")) throw new Error(`${file} does not begin with a comment that says what it shows`);
    if (lines < 10 || lines > 60) throw new Error(`${file} has ${lines} lines; an example has ten to sixty`);
    if (/ from "\.\.?\//.test(code)) throw new Error(`${file} imports a file of this tree; it is to use public names`);
    run(file, code);
  }
} finally {
  rmSync(folder, { recursive: true });
}
if (count === 0) throw new Error(`There are no examples in ${chosen.join(", ")}`);
console.log(`${count} examples run, what ${compared} of them print compared.`);
