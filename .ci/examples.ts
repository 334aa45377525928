/** Runs the examples of README and docstrings, each as a program of its own. */
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";

const files = execFileSync("git", ["ls-files", "README.md", "mod.ts", "docs/*.md", "lib/**/*.ts"], { encoding: "utf8" })
  .split("\n");
const folder = resolve(mkdtempSync(".ci/examples-")); // inside the tree, where "twobp" is found; what they write goes with it
let count = 0;
try {
  // What an example reads.
  for (const [image, name] of [["rgb_8.png", "cats/one.png"], ["ycc_420.jpg", "dogs/two.jpg"]]) {
    cpSync(`tests/fixtures/images/${image}`, join(folder, "photos", name));
  }
  for (const file of files.filter(Boolean)) {
    for (const [, block] of readFileSync(file, "utf8").matchAll(/```ts\n(.*?)```/gs)) {
      const code = file.endsWith(".md") ? block : block.replace(/^ *\* ?/gm, "");
      if (!/ from "twobp[/"]/.test(code)) continue; // a fragment
      const named = /^\/\/ (\w+\.ts)\n/.exec(code)?.[1]; // a file that later examples import
      const path = join(folder, named ?? `${count + 1}.ts`);
      count++;
      writeFileSync(path, code);
      const run = ["run", "-A", "--no-check", path];
      const { status, stderr } = spawnSync(process.execPath, run, { cwd: folder, encoding: "utf8" });
      if (status !== 0) throw new Error(`The example of ${file} fails: ${stderr}\n${code}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
if (count === 0) throw new Error("There are no examples");
console.log(`${count} examples run.`);
