/** The explorer as one HTML file: its script, bundled, and its style. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { optional } from "../optional.ts";

const source = (name: string) => new URL(`../explorer/${name}`, import.meta.url);

/** No request leaves the page, and nothing but what stands in it runs; the search's worker is made of the page's own script. */
const policy =
  "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; img-src data:";

/**
 * Bundles the page.
 *
 * @throws {UserError} Where the bundler is not installed.
 */
export async function explorerPage(): Promise<string> {
  const { build, transform } = await optional("esbuild", "The page is bundled by", () => import("esbuild"));
  const { outputFiles: [script] } = await build({
    entryPoints: [fileURLToPath(source("main.ts"))],
    ...{ bundle: true, minify: true, write: false, format: "iife", platform: "browser", logLevel: "silent" },
    ...{ target: ["chrome122", "firefox121", "safari17"], charset: "utf8" },
  });
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
<script>${script.text.trim()}</script>
</body>
</html>
`;
}
