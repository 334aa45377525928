/** The explorer as one HTML file: its script, bundled, the one that trains, which waits for somebody to start it, and its style. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { BuildOptions } from "esbuild";
import { optional } from "../optional.ts";
import { atlasCaps, atlasRanking } from "../planning/atlas.ts";
import { formatAtlas, readAtlas } from "../planning/atlas_file.ts";
import { runBundle } from "./run_bundle.ts";

const source = (name: string) => new URL(`../explorer/${name}`, import.meta.url);

/**
 * No request leaves the page, and nothing but what stands in it runs: workers are made of its own texts. The one that trains makes code
 * of the fields of kernels' parameters, see `packerFor`, which takes 'unsafe-eval'.
 */
const policy =
  "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; worker-src blob:; style-src 'unsafe-inline'; img-src data:";

/**
 * Bundles the page.
 *
 * @throws {UserError} Where the bundler is not installed.
 */
export async function explorerPage(): Promise<string> {
  const { build, transform } = await optional("esbuild", "The page is bundled by", () => import("esbuild"));
  const options: BuildOptions = {
    ...{ bundle: true, minify: true, format: "iife", platform: "browser", logLevel: "silent" },
    ...{ target: ["chrome122", "firefox121", "safari17"], charset: "utf8" },
  };
  const entryPoints = [fileURLToPath(source("main.ts"))];
  const { outputFiles: [script] } = await build({ ...options, write: false, entryPoints });
  const runs = await runBundle(build, options);
  const style = await transform(readFileSync(source("page.css"), "utf8"), { loader: "css", minify: true });
  return `<!doctype html>
<html lang="en" data-theme="auto">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<title>twobp explorer: pipeline schedules without and with 2BP</title>
<link rel="icon" href="data:,">
<style>${style.code.trim()}</style>
</head>
<body>
<noscript>This page draws schedules with JavaScript, which is off.</noscript>
<script type="application/json" id="atlas">${JSON.stringify(winners())}</script>
<script type="text/plain" id="run-worker">${runs}</script>
<script>${script.text.trim()}</script>
</body>
</html>
`;
}

/** The kept atlas without what is neither first nor second under any cap. */
function winners() {
  const kept = readAtlas(JSON.parse(readFileSync(source("../../bench/results/atlas.json"), "utf8")));
  return formatAtlas(kept.map((row) => {
    const named = new Set(atlasCaps.flatMap((cap) => atlasRanking(row, cap).slice(0, 2)));
    return { ...row, entries: row.entries.filter((entry) => named.has(entry)) };
  }));
}
