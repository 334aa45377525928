/**
 * `deno task pack [FOLDER]`: the npm package, as JavaScript with declarations, file by file as the sources are, and its tarball,
 * in `out/package` or the folder given. Sources stay what this checkout runs; Node strips no types below node_modules.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { copyPages } from "./pages.ts";

/** What the tarball is built by. Not among the project's own packages: nobody else needs them. */
const tools = ["-p", "tsdown@0.21.10", "-p", "typescript@5.9.3"];

/** What only parts of the toolkit load, when they are used; `npm install --omit=optional` leaves it out. */
const optional = [
  ...["webgpu", "koffi", "@sparticuz/chromium", "tar-fs"], // devices
  ...["@resvg/resvg-js", "jsdom", "pdfkit", "plotly.js-dist-min", "svg-to-pdfkit"], // figures
  ...["arquero", "@uwdata/flechette", "sharp"], // tables of notebooks, images
  ...["@huggingface/tokenizers", "hyparquet", "hyparquet-compressors"], // tokenizers, Parquet
];

/** What the commands alone need, which are not in the package. */
const ofCommands = ["commander", "esbuild"];

const folder = resolve(process.argv[2] ?? "out/package");
const { name, version, description, license, exports, dependencies, overrides } = JSON.parse(
  readFileSync("package.json", "utf8"),
);
/** With the version that this checkout overrides: overrides count only at the root of an installation, a dependency counts. */
const versions: Record<string, string> = { ...dependencies, ...overrides };

rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
const config = join(folder, "tsdown.config.mjs");
const settings = {
  entry: Object.values(exports),
  cwd: process.cwd(),
  outDir: join(folder, "dist"),
  tsconfig: join(folder, "tsconfig.json"),
  ...{ format: "esm", platform: "node", target: "node20", unbundle: true, fixedExtension: false, logLevel: "warn" },
};
writeFileSync(config, `export default { ...${JSON.stringify(settings)}, dts: { sourcemap: false } };`);
const compilerOptions = {
  ...{ target: "es2023", lib: ["es2024", "esnext"], module: "nodenext", types: ["@webgpu/types", "node"] },
  ...{ allowImportingTsExtensions: true, noEmit: true, strict: true, skipLibCheck: true },
};
writeFileSync(settings.tsconfig, JSON.stringify({ compilerOptions }));
execFileSync("npx", ["-y", ...tools, "tsdown", "--config", config], { stdio: ["ignore", "ignore", "inherit"] });
rmSync(config);
rmSync(settings.tsconfig);

// WebGPU's types are part of what the declarations say: whoever reads them needs those too.
for (const file of readdirSync(join(folder, "dist"), { recursive: true, encoding: "utf8" })) {
  if (!file.endsWith(".d.ts")) continue;
  const path = join(folder, "dist", file), text = readFileSync(path, "utf8");
  if (/\bGPU[A-Z]/.test(text)) writeFileSync(path, `/// <reference types="@webgpu/types" />\n${text}`);
}
cpSync("kernels", join(folder, "dist/kernels"), { recursive: true, filter: (path) => !path.endsWith(".md") });
const pages = copyPages(folder);
if (!pages.includes("LICENSE")) throw new Error("README does not lead to LICENSE");

const built = (source: string, ending: string) => source.replace("./", "./dist/").replace(/\.ts$/, ending);
const paths = Object.entries(exports as Record<string, string>);
const pick = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, versions[name]]));
const unknown = optional.filter((name) => !versions[name]);
if (unknown.length) throw new Error(`package.json has no ${unknown.join(", ")}`);
const needed = Object.keys(dependencies).filter((name) => !optional.includes(name) && !ofCommands.includes(name));
writeFileSync(
  join(folder, "package.json"),
  JSON.stringify(
    {
      ...{ name, version, description, license, type: "module", engines: { node: ">=20.19" } },
      files: ["dist", ...pages],
      exports: Object.fromEntries(
        paths.map(([path, source]) => [path, { types: built(source, ".d.ts"), default: built(source, ".js") }]),
      ),
      types: built(exports["."], ".d.ts"),
      // For TypeScript that does not read `exports`: tslab's, and "moduleResolution": "node10".
      typesVersions: {
        "*": Object.fromEntries(
          paths.filter(([path]) => path !== ".").map(([path, source]) => [path.slice(2), [built(source, ".d.ts")]]),
        ),
      },
      sideEffects: false,
      dependencies: pick(needed),
      optionalDependencies: pick(optional),
    },
    null,
    2,
  ) + "\n",
);
const tarball = execFileSync("npm", ["pack", "--silent", "--pack-destination", resolve(folder, "..")], {
  cwd: folder,
  encoding: "utf8",
}).trim();
console.log(resolve(folder, "..", tarball));
