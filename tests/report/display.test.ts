import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { display } from "../../lib/report/display.ts";
import { liveFigure } from "../../lib/report/live.ts";
import { progress } from "../../lib/report/progress.ts";
import { show } from "../../lib/report/show.ts";
import { plainTable, table } from "../../lib/report/show_table.ts";

interface Shown {
  data: Record<string, unknown>;
  transient: { display_id?: string };
  update?: boolean;
}

const figure = {
  data: [{ type: "bar", x: ["a", "b"], y: [1, 2] }],
  layout: { title: { text: "Bars, <b>simulated</b>" }, height: 300 },
};

/** Runs `body` as a cell of tslab would: what it displays is collected. */
async function inTslab(body: () => Promise<unknown> | void): Promise<Shown[]> {
  const jupyter = createRequire(import.meta.url)("tslab/dist/jupyter.js");
  const shown: Shown[] = [];
  jupyter.lastWriteDisplayData = (content: Shown, update?: boolean) => shown.push({ ...content, update });
  try {
    await body();
  } finally {
    jupyter.lastWriteDisplayData = null;
  }
  return shown;
}

async function inTerminal(body: () => Promise<unknown>): Promise<string> {
  const { log } = console;
  let text = "";
  console.log = (line: string) => text += `${line}\n`;
  try {
    await body();
  } finally {
    console.log = log;
  }
  return text;
}

test("a figure is shown as plotly's JSON, as a PNG and as text in one bundle", async () => {
  const [{ data }, ...rest] = await inTslab(() => show(figure));
  assert.equal(rest.length, 0);
  assert.deepEqual(Object.keys(data).sort(), ["application/vnd.plotly.v1+json", "image/png", "text/plain"]);
  assert.deepEqual((data["application/vnd.plotly.v1+json"] as typeof figure).data, figure.data);
  const png = Buffer.from(data["image/png"] as string, "base64");
  assert.equal(png.toString("latin1", 1, 4), "PNG");
  assert.equal(data["text/plain"], "[figure: Bars,  simulated ]");
});

test("a live figure replaces itself, is drawn no more often than drawing allows, and the last one stays", async () => {
  let made = 0;
  const make = () => ({ ...figure, data: [{ type: "scatter", y: Array.from({ length: ++made }, (_, i) => i) }] });
  const shown = await inTslab(async () => {
    const [one, other] = [liveFigure(), liveFigure()];
    for (let i = 0; i < 20; i++) await one.update(make); // the first at once, the others too soon
    await one.done(make);
    await other.done(make);
  });
  assert.equal(made, 3);
  const ids = shown.map(({ transient }) => transient.display_id);
  assert.deepEqual(ids, [ids[0], ids[0], ids[2]]);
  assert.notEqual(ids[2], ids[0]);
  assert.deepEqual(shown.map(({ update }) => update), [false, true, false]);
  const lengths = shown.map(({ data }) =>
    (data["application/vnd.plotly.v1+json"] as { data: { y: number[] }[] }).data[0].y.length
  );
  assert.deepEqual(lengths, [1, 2, 3]);
  const terminal = await inTerminal(async () => {
    const live = liveFigure();
    await live.update(make);
    await live.done(make);
  });
  assert.equal(terminal, "[figure: Bars,  simulated ]\n");
});

test("the Deno kernel gets the same bundle", async () => {
  const sent: unknown[] = [];
  const before = Object.getOwnPropertyDescriptor(globalThis, "Deno");
  const jupyter = { broadcast: (type: string, content: Shown) => void sent.push([type, content]) };
  Object.defineProperty(globalThis, "Deno", { configurable: true, value: { jupyter } });
  try {
    await display({ "text/plain": "a" }, { id: "x" });
    await display({ "text/plain": "b" }, { id: "x", update: true });
  } finally {
    if (before) Object.defineProperty(globalThis, "Deno", before);
    else delete (globalThis as Record<string, unknown>).Deno;
  }
  const content = (text: string) => ({ data: { "text/plain": text }, metadata: {}, transient: { display_id: "x" } });
  assert.deepEqual(sent, [["display_data", content("a")], ["update_display_data", content("b")]]);
});

test("a terminal gets the text", async () => {
  assert.equal(await inTerminal(() => show(figure)), "[figure: Bars,  simulated ]\n");
  assert.match(await inTerminal(() => table([{ name: "a", value: 1 }])), /name.*value[\s\S]*a.*1/);
});

test("a table is HTML with numbers on the right and its texts escaped", async () => {
  const rows = [["<i>a</i>", 1, "5.0 %"], ["b & c", 22, "-"]];
  const [{ data }] = await inTslab(() => table({ columns: ["<name>", "value", "share"], rows }));
  const html = String(data["text/html"]);
  assert.equal(html.match(/<tr>/g)?.length, 3);
  assert.ok(html.includes("&lt;i&gt;a&lt;/i&gt;") && html.includes("b &amp; c") && html.includes("&#60;name&#62;"));
  assert.match(html, /<td style="text-align: right;">22<\/td>/);
  assert.match(html, /<td style="text-align: right;">5.0 %<\/td>/);
  assert.match(html, /<td style="text-align: left;">b/);
});

test("objects, names with rows, and arquero tables all make the same table", async () => {
  const objects = [{ a: 1, b: "x" }, { a: 2, b: "y" }];
  const expected = { columns: ["a", "b"], rows: [[1, "x"], [2, "y"]] };
  const { from } = await import("arquero");
  assert.deepEqual(plainTable(objects), expected);
  assert.deepEqual(plainTable(expected), expected);
  assert.deepEqual(plainTable(from(objects)), expected);
});

test("progress is one line that replaces itself and ends with the count", async () => {
  const shown = await inTslab(() => {
    const bar = progress(1000);
    for (let step = 0; step < 1000; step++) bar.step();
    bar.done();
  });
  assert.ok(shown.length >= 2 && shown.length < 20);
  assert.equal(new Set(shown.map(({ transient }) => transient.display_id)).size, 1);
  assert.deepEqual(shown.map(({ update }) => update), shown.map((_, index) => index > 0));
  assert.equal(shown[shown.length - 1].data["text/plain"], "1000 steps");
});
