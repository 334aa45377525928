/** The view that trains on the visitor's GPU, in a browser whose WebGPU is SwiftShader's. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { explorerPage } from "../../lib/cli/explorer_page.ts";
import type { RunReport } from "../../lib/explorer/run_messages.ts";
import { hasBrowser, openBrowser, type Page } from "./browser.ts";

const says = (page: Page, id: string) => page.evaluate<string>(`document.getElementById("${id}").textContent`);
const click = (page: Page, id: string) => page.evaluate(`document.getElementById("${id}").click()`);

/** Types a value into a field. */
const type = (page: Page, id: string, value: string) =>
  page.evaluate(`{
    const input = document.getElementById("${id}");
    input.value = "${value}";
    input.dispatchEvent(new Event("input"));
  }`);

/** The page, opened from a file, for `work`. */
async function onPage(withGpu: boolean, work: (page: Page) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "twobp-explorer-")), file = join(folder, "explorer.html");
  writeFileSync(file, await explorerPage());
  const page = await openBrowser(`${pathToFileURL(file).href}#devices=2`, 1280, 900, withGpu);
  try {
    await click(page, "run-it-here");
    await page.until("document.getElementById('run-gpu').textContent !== 'Looking for a GPU'");
    await work(page);
    assert.deepEqual(page.complaints.filter((each) => !/WebGPU/.test(each)), []);
    assert.deepEqual(page.requests.filter((url) => !/^(file|blob|data):/.test(url)), []);
  } finally {
    await page.close();
    rmSync(folder, { recursive: true });
  }
}

/** Whether a run has ended. */
const isOver = "document.getElementById('run').textContent === 'Run'";

test("a pair of schedules trains in the page: the loss falls, there are a gain, both charts and a report to download", {
  skip: !hasBrowser,
}, () =>
  onPage(true, async (page) => {
    assert.match(await says(page, "run-gpu"), /^GPU: .*swiftshader.*, which computes on the processor$/i);
    assert.equal(await says(page, "run-what"), "Will run: 1f1b-1 with 2BP, fill on 2 ranks");

    // What cannot run, or is no number, is said before anything runs.
    await type(page, "field-devices", "12");
    assert.equal(await says(page, "run-what"), "The schedule has 12 ranks; from 2 to 8 can run here");
    assert.equal(await page.evaluate("document.getElementById('run').disabled"), true);
    await type(page, "field-devices", "2");
    await type(page, "run-samples", "0");
    await click(page, "run");
    assert.match(await says(page, "run-status"), /^Samples must be a whole number from 1 to 64, not 0$/);

    await type(page, "run-samples", "1");
    await type(page, "run-repeats", "3");
    await click(page, "run");
    await page.until(`${isOver} && document.getElementById("run-status").textContent !== ""`);
    assert.equal(await says(page, "run-status"), "Done: 3 pairs of steps counted.");
    assert.match(
      await says(page, "run-gain"),
      /^Gain of 2BP: \d\.\d{3} \(virtual\), the median of 3 pairs; quartiles /,
    );
    // Errors of predictions are not kept of this driver: the predicted gain has no bar, and a note says so.
    assert.match(await says(page, "here"), /Without \+-: how far such a prediction may be off is not known/);
    const bars = (id: string) => page.evaluate<number>(`document.querySelectorAll("#${id} .bar").length`);
    assert.deepEqual([await bars("measured-base"), await bars("measured-split")], [8, 12], "F and B; F, I and W");

    const report: RunReport = JSON.parse(
      await page.evaluate<string>(`{
        let saved;
        const create = URL.createObjectURL;
        URL.createObjectURL = (blob) => (saved = blob.text(), create(blob));
        document.getElementById("run-save").click();
        URL.createObjectURL = create;
        saved;
      }`),
    );
    const { schema, mode, devices, adapter, model, samples, rows, gains: [gain], loss, machine, timestampStepMs } =
      report;
    assert.deepEqual({ schema, mode, devices, samples }, { schema: 1, mode: "virtual", devices: 2, samples: 1 });
    assert.equal(model.name, "llama-tiny");
    assert.match(`${adapter} ${machine.runtime}`, /swiftshader.*Chrome/i);
    assert.match(`${machine.twobp} ${machine.date}`, /^\d+\.\d+\.\d+ 20\d\d-/);
    assert.ok(machine.gpu.features.includes("timestamp-query") && machine.gpu.software);
    assert.deepEqual(rows.map(({ twoStage, stepMs }) => [twoStage, stepMs.each!.length]), [[false, 3], [true, 3]]);
    assert.equal(gain.pairs, 3);
    const ratios = rows[0].stepMs.each!.map((without, at) => without / rows[1].stepMs.each![at]).sort((a, b) => a - b);
    assert.ok(Math.abs(gain.gain / ratios[1] - 1) < 1e-4, `${gain.gain}, by hand ${ratios[1]}`);
    assert.ok((await says(page, "run-gain")).includes(gain.gain.toFixed(3)));
    // Bytes at random would be ln 256 = 5.55.
    assert.ok(loss.first < 5.7 && loss.last < loss.first - 0.2, `the loss goes from ${loss.first} to ${loss.last}`);
    assert.ok(timestampStepMs > 0 && timestampStepMs < 0.01, `${timestampStepMs} ms`);

    // A long one is stopped; what it counted stays.
    await type(page, "run-repeats", "200");
    await click(page, "run");
    await page.until("/the median of 1 pair;/.test(document.getElementById('run-gain').textContent)");
    await click(page, "run");
    await page.until(isOver);
    assert.match(await says(page, "run-status"), /^Stopped: \d pairs? of steps counted\.$/);

    await page.resize(390, 844);
    await page.until("document.getElementById('measured-base').clientWidth < 390");
    assert.ok(await page.evaluate<number>("document.documentElement.scrollWidth") <= 390);
  }));

test(
  "a browser without a GPU says what is missing, and offers no run",
  { skip: !hasBrowser },
  () =>
    onPage(false, async (page) => {
      assert.match(await says(page, "run-gpu"), /^This browser has (no WebGPU|WebGPU and finds no GPU)/);
      assert.equal(await page.evaluate("document.getElementById('run').disabled"), true);
      await page.evaluate("document.querySelector('.views button').click()");
      assert.equal(await page.evaluate("document.getElementById('here').hidden"), true);
    }),
);
