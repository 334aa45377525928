import assert from "node:assert/strict";
import { test } from "node:test";
import sharp from "sharp";
import { ganttFigure } from "../../lib/report/gantt.ts";
import { figurePng } from "../../lib/report/png.ts";
import { kindColours } from "../../lib/report/style.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { simulate } from "../../lib/schedules/price/simulate.ts";

const schedule = generate("1f1b-1", { devices: 3 });
const simulation = simulate(schedule);
const figure = ganttFigure(schedule, simulation);

async function decode(png: Uint8Array) {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
  return { data, ...info };
}

/** Share of the pixels of one colour, exactly. */
function share({ data, channels, width, height }: Awaited<ReturnType<typeof decode>>, hex: string): number {
  const wanted = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  let count = 0;
  for (let at = 0; at < data.length; at += channels) {
    if (wanted.every((value, channel) => data[at + channel] === value)) count++;
  }
  return count / (width * height);
}

test("a figure becomes a PNG of its size, times the scale", async () => {
  const small = await decode(await figurePng(figure, { width: 600 }));
  const large = await decode(await figurePng(figure, { width: 600, scale: 2 }));
  const { height } = figure.layout as { height: number };
  assert.deepEqual([small.width, small.height], [600, height]);
  assert.deepEqual([large.width, large.height], [1200, 2 * height]);
});

test("the bars of a Gantt are painted, each kind in proportion to its time", async () => {
  const image = await decode(await figurePng(figure));
  const [forward, backward] = [share(image, kindColours.F), share(image, kindColours.B)];
  assert.ok(forward > 0.05, `forward covers ${forward}`);
  // A B takes twice as long as an F; labels and outlines take a part of the shorter bars.
  assert.ok(backward / forward > 1.9 && backward / forward < 2.6, `ratio ${backward / forward}`);
});

test("texts are painted where plotly makes room for them: titles, ticks and labels leave ink in the margins", async () => {
  const { data, width, channels } = await decode(await figurePng(figure));
  const ink = (left: number, top: number, right: number, bottom: number) => {
    let count = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) if (data[(y * width + x) * channels] < 100) count++;
    }
    return count;
  };
  const { height, margin } = figure.layout as { height: number; margin: Record<string, number> };
  assert.ok(ink(5, 5, 300, margin.t - 30) > 100, "title");
  assert.ok(ink(5, margin.t, margin.l - 8, height - margin.b) > 100, "names of the devices");
  assert.ok(ink(margin.l, height - margin.b + 8, width, height) > 100, "ticks and title of the time axis");
  assert.equal(ink(width - 3, 0, width, height), 0, "nothing is cut off on the right");
});
