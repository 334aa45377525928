/** The page in a browser: what a user does, and what stands there then. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { explorerPage } from "../../lib/cli/explorer_page.ts";
import { validate } from "../../lib/schedules/check/validate.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { toCsv } from "../../lib/schedules/csv/csv.ts";
import { moveAction } from "../../lib/explorer/edit.ts";
import { hasBrowser, openBrowser, type Page } from "./browser.ts";

/** What the page says in places. */
const says = (page: Page, selector: string) =>
  page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)}).textContent`);

/** Types a value into a field. */
const type = (page: Page, field: string, value: string) =>
  page.evaluate(`{
    const input = document.getElementById("field-${field}");
    input.value = ${JSON.stringify(value)};
    input.dispatchEvent(new Event("input"));
  }`);

const barOf = (variant: string, rank: number, index: number) =>
  `#${variant} [data-rank="${rank}"][data-index="${index}"]`;

/** The middle of an action on the screen. */
const middleOf = (page: Page, variant: string, rank: number, index: number) =>
  page.evaluate<[number, number]>(`{
    const { x, y, width, height } = document.querySelector('${barOf(variant, rank, index)}').getBoundingClientRect();
    [x + width / 2, y + height / 2];
  }`);

test("the page works from a file: another schedule, a deadlock by an edit, undo, a search under a cap, a link", {
  skip: !hasBrowser,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), "twobp-explorer-"));
  const file = join(folder, "explorer.html"), html = await explorerPage();
  writeFileSync(file, html);
  assert.ok(html.length < 500_000, `${html.length} bytes`);
  const page = await openBrowser(pathToFileURL(file).href);
  try {
    assert.equal(await says(page, "#title-base"), "1f1b-1 without 2BP: 21 units");
    assert.equal(await says(page, "#title-split"), "1f1b-1 with 2BP, fill: 15 units");
    assert.match(await says(page, ".gain"), /1\.400 times as fast/);

    await type(page, "schedule", "gpipe");
    await type(page, "policy", "end");
    await type(page, "width", "4");
    assert.equal(await says(page, "#title-split"), "gpipe with 2BP, end, width 4: 18 units");
    await type(page, "f", "1,1");
    assert.match(await says(page, "#error"), /^F has 2 values, and there are 4 stages/);
    assert.equal(await page.evaluate("document.querySelector('[aria-invalid=true]').id"), "field-f");
    await type(page, "f", "1");

    // Why an action waits, by the mouse.
    await page.point(...await middleOf(page, "base", 2, 0));
    assert.match(await says(page, "#because"), /^Rank 2 is idle for 2, from 0: it waits for the activation of stage 1/);

    // The ground does nothing but move what is looked at.
    const [right, row] = await middleOf(page, "base", 0, 0);
    await page.drag([right + 300, row], [right + 200, row]);
    assert.equal(await page.evaluate("document.activeElement === document.body"), true);
    assert.match(await says(page, "#because"), /^Rank 2 is idle/);

    // GPipe's last rank with a backward before its last forward, by dragging; the rank before it by keys.
    const [, y] = await middleOf(page, "base", 3, 3);
    const [x] = await middleOf(page, "base", 3, 7);
    await page.drag(await middleOf(page, "base", 3, 3), [x + 60, y]);
    const actions = moveAction(generate("gpipe", { devices: 4 }).actions, 3, 3, 7);
    const wrong = { ...generate("gpipe", { devices: 4 }), actions };
    const fault = (actions: typeof wrong.actions): string => {
      try {
        validate({ ...wrong, actions });
        return "";
      } catch (error) {
        return (error as Error).message;
      }
    };
    assert.match(fault(actions), /needs the forward 3F3 first/);
    assert.equal(await says(page, "#base .fault"), fault(actions));
    assert.match(await says(page, "#title-base"), /edited: does not run$/);
    await page.evaluate("document.querySelector('header [title^=Undo]').click()");
    assert.equal(await says(page, "#title-base"), "gpipe without 2BP: 21 units");
    await page.drag(await middleOf(page, "base", 2, 4)); // 2B0
    for (let place = 4; place > 2; place--) await page.press("ArrowLeft", true);
    await page.drag(await middleOf(page, "base", 3, 4)); // 3B0
    await page.press("ArrowRight", true);
    const hangs = moveAction(moveAction(wrong.actions, 3, 7, 3), 2, 4, 2);
    const before = moveAction(hangs, 3, 4, 5);
    assert.match(
      fault(before),
      /^Deadlock: rank 2 waits at its action 2 \(2B0\) .* rank 3 waits at its action 2 \(3F2\)/,
    );
    assert.equal(await says(page, "#base .fault"), fault(before));
    assert.equal(await page.evaluate("document.querySelectorAll('#base .stuck').length"), 4);
    await page.press("ArrowLeft");
    await page.press("ArrowLeft");
    assert.match(await says(page, "#because"), /^Never starts/);

    // The link to it, in the same page opened again.
    const shown = await says(page, "#base .fault");
    await page.evaluate("isOld = true, setTimeout(() => location.reload())"); // it answers before it goes
    await page.until("!globalThis.isOld && document.querySelector('#base .fault')?.hidden === false");
    assert.equal(await says(page, "#base .fault"), shown);

    // A schedule from a file, and the same to a file.
    const csv = toCsv(generate("zb-h1", { devices: 3, microbatches: 4 }));
    await page.evaluate(`{
      const files = new DataTransfer(), input = document.getElementById("file");
      files.items.add(new File([${JSON.stringify(csv)}], "mine.csv"));
      input.files = files.files;
      input.dispatchEvent(new Event("change"));
    }`);
    await page.until("document.querySelector('#title-split').textContent === 'mine.csv split: 14 units'");
    assert.equal(await says(page, "#title-base"), "mine.csv without 2BP: 18 units");
    const saved = await page.evaluate<string>(`{
      let saved;
      const create = URL.createObjectURL;
      URL.createObjectURL = (blob) => (saved = blob.text(), create(blob));
      [...document.querySelectorAll("button")].find((each) => each.textContent === "Save with 2BP").click();
      URL.createObjectURL = create;
      saved;
    }`);
    assert.equal(saved, csv);

    // A search in the worker, under a cap that ZB-H1 keeps: its step is the shortest.
    await type(page, "schedule", "1f1b");
    await type(page, "devices", "3");
    await type(page, "microbatches", "4");
    await type(page, "policy", "fill");
    await type(page, "derivatives", "0");
    await type(page, "cap", "3");
    await page.evaluate("document.getElementById('search').click()");
    await page.until("document.getElementById('search').textContent === 'Search'");
    assert.equal(
      await says(page, "#search-status"),
      "14 units. Proven optimal: no schedule of one stage a rank is faster than 14.",
    );
    assert.equal(await says(page, "#title-split"), "search split: 14 units");
    assert.match(await says(page, "table tbody tr:nth-child(2)"), /3 \/ 3 \/ 3/);

    // One that takes long is stopped, and says what it has.
    await type(page, "devices", "6");
    await type(page, "microbatches", "12");
    await type(page, "f", "1,1.3,0.9,1.7,1.1,1.2");
    await type(page, "i", "1.1,1,0.8,1.3,1.6,1.2");
    await type(page, "w", "0.7,1.2,0.9,1,1.3,0.8");
    await type(page, "latency", "0.3");
    await type(page, "budget", "1000000000");
    await type(page, "cap", "4");
    await page.evaluate("document.getElementById('search').click()");
    await page.until("/candidates/.test(document.getElementById('search-status').textContent)");
    await page.evaluate("document.getElementById('search').click()");
    await page.until("document.getElementById('search').textContent === 'Search'");
    assert.match(
      await says(page, "#search-status"),
      /^[\d.]+ units\. Interrupted; not proven optimal: no schedule is faster than [\d.]+/,
    );

    // A phone: nothing is wider than the screen.
    await page.resize(390, 844);
    await page.until("document.querySelector('.drawing').clientWidth < 390");
    assert.ok(await page.evaluate<number>("document.documentElement.scrollWidth") <= 390);

    assert.deepEqual(page.complaints, []);
    assert.deepEqual(page.requests.filter((url) => !/^(file|blob|data):/.test(url)), []);
  } finally {
    await page.close();
    rmSync(folder, { recursive: true });
  }
});
