/**
 * `deno task docs`: pages of every public name, in `out/docs`, by `deno doc --html`. That names modules by the exports of a
 * deno.json; this project's are in package.json alone, so the pages are made in a folder that has both, beside links to the sources.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";

const target = resolve("out/docs");
const { name, version, exports } = JSON.parse(readFileSync("package.json", "utf8"));
const folder = mkdtempSync(resolve(".ci/docs-")); // links that leave the tree would find no packages
try {
  for (const each of ["lib", "mod.ts", "package.json", "node_modules"]) symlinkSync(resolve(each), join(folder, each));
  // A scope is what deno.json asks of a name; no page shows it.
  const config = { ...JSON.parse(readFileSync("deno.json", "utf8")), name: `@${name}/${name}`, version, exports };
  writeFileSync(join(folder, "deno.json"), JSON.stringify(config));
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const modules = Object.values<string>(exports);
  const options = ["--quiet", "--html", `--name=${name}`, `--output=${target}`];
  execFileSync(process.execPath, ["doc", ...options, ...modules], { cwd: folder, stdio: "inherit" });
} finally {
  rmSync(folder, { recursive: true });
}

// The first page names the sub-paths, and has no links to them.
const first = join(target, "index.html");
let html = readFileSync(first, "utf8");
for (const path of Object.keys(exports).filter((path) => path !== ".").map((path) => path.slice(2))) {
  const text = `<code>${name}/${path}</code>`, page = `${path}/index.html`;
  if (!html.includes(text)) throw new Error(`The first comment of mod.ts does not name ${name}/${path}`);
  if (!existsSync(join(target, page))) throw new Error(`There is no page ${page}`);
  html = html.replace(text, `<a href="${page}">${text}</a>`);
}
writeFileSync(first, html);
console.log(first);
