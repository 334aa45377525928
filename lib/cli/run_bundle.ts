/** The script that trains in a browser: twobp without what only Node and its kin have, and with the kernels that it names. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { BuildOptions, Plugin } from "esbuild";
import { kernelFile } from "../gpu/kernel_files.ts";
import { describeMachine } from "../measure/machine.ts";

/** Where a module `x.ts` has an `x.browser.ts` beside it, a browser gets that. */
const forBrowsers: Plugin = {
  name: "for browsers",
  setup: ({ onResolve }) =>
    onResolve({ filter: /^\..*\.ts$/ }, ({ path, resolveDir }) => {
      const own = join(resolveDir, path.replace(/\.ts$/, ".browser.ts"));
      return existsSync(own) ? { path: own } : undefined;
    }),
};

/** Bundles the script, as `options` say; `build` is the bundler's. */
export async function runBundle(build: typeof import("esbuild").build, options: BuildOptions): Promise<string> {
  const entry = fileURLToPath(new URL("../explorer/run_worker.ts", import.meta.url));
  const result = await build({ ...options, write: false, entryPoints: [entry], plugins: [forBrowsers] });
  const { text } = result.outputFiles[0];
  const { twobp, commit } = describeMachine();
  const given = Object.entries({ kernelTexts: kernelsIn(text), builtFrom: { twobp, commit } });
  const written = given.map(([name, value]) => `const ${name}=${JSON.stringify(value).replaceAll("</", "<\\/")};`);
  return `${written.join("")}${text.trim()}`;
}

/**
 * The kernels that a script may name, and what they include; without comments, and with their lines as they are. Names are put
 * together of parts, `${file}_group`, so that the beginning of a name counts too.
 */
function kernelsIn(script: string): Record<string, string> {
  const texts: Record<string, string> = {};
  const add = (name: string) => {
    if (Object.hasOwn(texts, name)) return;
    texts[name] = kernelFile(name).replace(/[ \t]*\/\/.*$/gm, "").replace(/^ +/gm, " ");
    for (const [line] of texts[name].matchAll(/^\s*#(include|each) .*/gm)) {
      for (const [, included] of line.matchAll(/"([^"]+)"/g)) add(`include/${included}`);
    }
  };
  const isNamed = (name: string) => {
    const parts = name.split("_");
    return parts.some((_, at) => new RegExp(`["'\`]${parts.slice(0, at + 1).join("_")}["'\`_]`).test(script));
  };
  for (const file of readdirSync(new URL("../../kernels/", import.meta.url))) {
    if (file.endsWith(".wgsl") && isNamed(file.replace(/\.wgsl$/, ""))) add(file.replace(/\.wgsl$/, ""));
  }
  return texts;
}
