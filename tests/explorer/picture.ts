/**
 * `deno run -A tests/explorer/picture.ts`: draws docs/explorer.png anew, the page with what an action waits for, and
 * docs/explorer-run.png, a run in it on a software GPU.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import sharp from "sharp";
import { explorerPage } from "../../lib/cli/explorer_page.ts";
import { openBrowser } from "./browser.ts";

/** Keeps a picture of a page small. */
async function keep(picture: Uint8Array, name: string): Promise<void> {
  await sharp(picture).png({ palette: true, colours: 64, compressionLevel: 9 }).toFile(`docs/${name}.png`);
}

const folder = mkdtempSync(join(tmpdir(), "twobp-picture-")), file = join(folder, "explorer.html");
writeFileSync(file, await explorerPage());
const page = await openBrowser(`${pathToFileURL(file).href}#devices=3&latency=0.5&transfer=0.25`, 1240, 1110);
const [x, y] = await page.evaluate<[number, number]>(`{
  const { x, y, width, height } = document.querySelector('#split [data-rank="1"][data-index="2"]').getBoundingClientRect();
  [x + width / 2, y + height / 2];
}`);
await page.drag([x, y]);
await page.evaluate("new Promise(requestAnimationFrame)");
await keep(await page.picture(), "explorer");
await page.close();

const run = await openBrowser(`${pathToFileURL(file).href}#devices=2`, 1240, 760, true);
await run.evaluate("document.getElementById('run-it-here').click()");
await run.until("!document.getElementById('run').disabled");
await run.evaluate(`{
  document.getElementById("run-repeats").value = "11";
  document.getElementById("run-samples").value = "2";
  document.getElementById("run").click();
}`);
await run.until("document.getElementById('run-status').textContent.startsWith('Done')");
await keep(await run.picture(true), "explorer-run");
await run.close();
rmSync(folder, { recursive: true });
