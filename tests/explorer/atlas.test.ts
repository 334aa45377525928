/** The view "Atlas": what it says of places, and what a click on one opens. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { explorerPage } from "../../lib/cli/explorer_page.ts";
import { atlasState } from "../../lib/explorer/atlas.ts";
import { outcomeOf } from "../../lib/explorer/outcome.ts";
import { atlasCaps, atlasRanking } from "../../lib/planning/atlas.ts";
import { readAtlas } from "../../lib/planning/atlas_file.ts";
import { hasBrowser, openBrowser } from "./browser.ts";

const kept = new URL("../../bench/results/atlas.json", import.meta.url);
const rows = readAtlas(JSON.parse(readFileSync(kept, "utf8")));

test("the form that a place opens gives the step and the peak that the atlas has there", () => {
  const small = rows.filter(({ devices, microbatches }) => devices * microbatches <= 64);
  for (const row of small.filter((_, at) => at % 7 === 0)) {
    for (const cap of atlasCaps) {
      const [entry] = atlasRanking(row, cap);
      const { base, split, isSplit } = outcomeOf(atlasState(row, entry));
      const { schedule, priced } = entry.policy || isSplit ? split : base;
      assert.equal(schedule.name, entry.schedule);
      assert.equal(schedule.policy, entry.policy);
      const { makespan, peak } = priced!.simulation;
      assert.ok(Math.abs(makespan / entry.makespan - 1) < 1e-5, `${makespan}, not ${entry.makespan}`);
      assert.equal(Math.max(...peak), entry.peak);
    }
  }
});

test(
  "the page shows a map for each number of ranks, and a click on a place opens its schedule, which Undo takes back",
  {
    skip: !hasBrowser,
  },
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "twobp-explorer-")), file = join(folder, "explorer.html");
    writeFileSync(file, await explorerPage());
    const page = await openBrowser(pathToFileURL(file).href);
    const says = (selector: string) => page.evaluate<string>(`document.querySelector("${selector}").textContent`);
    try {
      await page.evaluate("document.getElementById('open-atlas').click()");
      const shown = rows.filter(({ forward, message }) => forward === 1 && message === 0);
      assert.equal(await page.evaluate("document.querySelectorAll('.map').length"), 4);
      assert.equal(await page.evaluate("document.querySelectorAll('.map button').length"), shown.length);

      const pick = async (id: string, value: string) =>
        await page.evaluate(`{
        const select = document.getElementById("${id}");
        select.value = "${value}";
        select.dispatchEvent(new Event("input"));
      }`);
      await pick("atlas-memory", "Infinity");
      await pick("atlas-message", "0.2");
      const row = rows.find((each) =>
        each.devices === 8 && each.microbatches === 16 && each.weight === 1 && each.forward === 1 &&
        each.message === 0.2
      )!;
      const [first] = atlasRanking(row, Infinity);
      const cell = ".map[data-devices='8'] tbody tr:nth-child(2) td:nth-child(3) button";
      assert.equal(await says(cell), (row.plain / first.makespan).toFixed(2));
      await page.evaluate(`document.querySelector("${cell}").focus()`);
      assert.ok((await says("#atlas-about")).startsWith(`8 ranks, 16 micro-batches, W/I 1: ${first.schedule}`));
      await page.evaluate(`document.querySelector("${cell}").click()`);
      assert.equal(await page.evaluate("document.getElementById('atlas-view').hidden"), true);
      const titles = `${await says("#title-base")} ${await says("#title-split")}`;
      assert.ok(titles.includes(first.schedule) && titles.includes(`: ${first.makespan} units`), titles);

      await page.evaluate("document.querySelector('header [title^=Undo]').click()");
      assert.equal(await says("#title-base"), "1f1b-1 without 2BP: 21 units");
      assert.deepEqual(page.complaints, []);
      assert.deepEqual(page.requests.filter((url) => !/^(file|blob|data):/.test(url)), []);
    } finally {
      await page.close();
      rmSync(folder, { recursive: true });
    }
  },
);
