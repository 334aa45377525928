import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { inflateSync } from "node:zlib";
import { JSDOM } from "jsdom";
import sharp from "sharp";
import { UserError } from "../../lib/errors.ts";
import { ganttFigure } from "../../lib/report/gantt.ts";
import { figurePdf } from "../../lib/report/pdf.ts";
import { figurePng } from "../../lib/report/png.ts";
import { saveFigure, saveTable } from "../../lib/report/save.ts";
import { figureSvg } from "../../lib/report/svg.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";

const packageJson = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const folder = mkdtempSync(join(tmpdir(), "twobp-figures-"));
after(() => rmSync(folder, { recursive: true }));
const schedule = generate("1f1b-1", { devices: 3 });
const figure = ganttFigure(schedule, simulate(schedule));
const { height } = figure.layout as { height: number };
const about = "bench <a> & b";

/** A PDF as text, its compressed streams unpacked. */
function pdfText(pdf: Uint8Array): string {
  const raw = Buffer.from(pdf).toString("latin1");
  return raw.replace(/(\/FlateDecode\b[^>]*>>\s*)stream\n([\s\S]*?)\nendstream/g, (_, head, data) => {
    return head + inflateSync(Buffer.from(data, "latin1")).toString("latin1");
  });
}

/** A text that a PDF says of itself: its information names an object, which holds the text. */
function infoOf(text: string, field: string): string {
  const [, object] = new RegExp(`/${field} (\\d+) 0 R`).exec(text)!;
  return new RegExp(`\n${object} 0 obj\n\\((.*)\\)\n`).exec(text)![1];
}

test("a figure's SVG is a document of its size with its texts as texts, and says of itself how it came to be", async () => {
  const svg = await figureSvg(figure, { width: 600, about });
  const { documentElement: root } = new JSDOM(svg, { contentType: "image/svg+xml" }).window.document;
  assert.deepEqual(["width", "height"].map((name) => Number(root.getAttribute(name))), [600, height]);
  assert.equal(root.querySelector("metadata")!.textContent, about);
  const texts = [...root.querySelectorAll("text")].map(({ textContent }) => textContent);
  for (const text of ["rank 0", "rank 2", "F: forward"]) assert.ok(texts.includes(text), `${text} in ${texts}`);
  const { data, info } = await sharp(Buffer.from(svg)).raw().toBuffer({ resolveWithObject: true });
  assert.deepEqual([info.width, info.height], [600, height]);
  assert.ok(new Set(data).size > 20, "another painter than ours draws it too");
});

test("a legend has room for letters that are wider than those that were measured", async () => {
  const { documentElement: root } =
    new JSDOM(await figureSvg(figure), { contentType: "image/svg+xml" }).window.document;
  const clip = root.querySelector('clipPath[id^="legend"] rect')!;
  const [last] = [...root.querySelectorAll(".legend .traces")].slice(-1); // its text begins 40 to the right of it
  const start = Number(/translate\(([\d.]+)/.exec(last.getAttribute("transform")!)![1]) + 40;
  const letters = last.querySelector("text")!.textContent!.length;
  assert.ok(Number(clip.getAttribute("width")) > start + 13 * 0.7 * letters, "wide ones take 0.7 of their size of 13");
});

test("the same figure gives the same SVG, and two figures have no names in common", async () => {
  const ids = (svg: string) => [...svg.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
  const first = await figureSvg(figure);
  assert.equal(await figureSvg(figure), first);
  const gpipe = generate("gpipe", { devices: 3 });
  const other = ids(await figureSvg(ganttFigure(gpipe, simulate(gpipe))));
  assert.ok(ids(first).length > 0);
  assert.deepEqual(ids(first).filter((id) => other.includes(id)), []);
});

test("a figure's PDF is one page of its size, of vectors, with its font, its title and how it came to be", async () => {
  const text = pdfText(await figurePdf(figure, { width: 600, about }));
  assert.match(text, /^%PDF-1/);
  assert.match(text, new RegExp(`/MediaBox \\[0 0 450 ${0.75 * height}\\]`));
  assert.match(text, /\/Count 1\b/);
  assert.match(text, /\/FontName \/\w+\+OpenSans-Regular/);
  assert.match(text, /\/FontFile2 /);
  assert.doesNotMatch(text, /\/Subtype \/Image/);
  assert.equal(infoOf(text, "Subject"), about);
  assert.equal(infoOf(text, "Title"), "1f1b-1 on 3 simulated devices");
  // The bars are filled in the colour of forwards: (0, 114, 178) of 255.
  assert.match(text, /0 0?\.447\d* 0?\.698\d* (?:rg|scn)/);
});

test("a PNG says in a comment how it came to be, which readers of PNG take", async () => {
  const png = await figurePng(figure, { about: `${about} \u00e9` });
  const [comment] = (await sharp(png).metadata()).comments ?? [];
  assert.deepEqual(comment, { keyword: "Comment", text: `${about} \u00e9` });
  assert.deepEqual(await sharp(png).raw().toBuffer(), await sharp(await figurePng(figure)).raw().toBuffer());
});

test("saveFigure and saveTable write what the ending says, with version and machine, and refuse others", async () => {
  const rows = [{ schedule: "gpipe", makespan: 21 }];
  const own = `twobp ${packageJson.version}`;
  for (const ending of ["svg", "pdf", "PNG"]) await saveFigure(figure, join(folder, `f.${ending}`));
  for (const ending of ["csv", "md", "tex"]) saveTable(rows, join(folder, `t.${ending}`));
  const read = (name: string) => readFileSync(join(folder, name));
  assert.match(read("f.svg").toString(), new RegExp(`^<svg[^>]*><metadata>${own}`));
  assert.ok(infoOf(pdfText(read("f.pdf")), "Subject").startsWith(own));
  assert.equal((await sharp(read("f.PNG")).metadata()).height, 2 * height);
  assert.equal(read("t.csv").toString(), "schedule,makespan\ngpipe,21\n");
  assert.match(read("t.md").toString(), new RegExp(`^<!-- ${own}`));
  assert.match(read("t.tex").toString(), new RegExp(`^% ${own}`));
  await assert.rejects(saveFigure(figure, join(folder, "f.jpg")), (error: Error) => {
    return error instanceof UserError && /f\.jpg must end in one of \.svg, \.pdf, \.png$/.test(error.message);
  });
  assert.throws(() => saveTable(rows, join(folder, "t")), /saveTable: .*t must end in one of \.csv, \.md, \.tex$/);
  await assert.rejects(saveFigure(figure, join(folder, "no", "f.pdf")), /there is no directory/);
  assert.deepEqual(readdirSync(folder).sort(), ["f.PNG", "f.pdf", "f.svg", "t.csv", "t.md", "t.tex"]);
});
