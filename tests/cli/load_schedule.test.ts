import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { agreement } from "../../bench/agreement.ts";
import { memory } from "../../bench/memory.ts";
import { scaling } from "../../bench/scaling.ts";
import { throughput } from "../../bench/throughput.ts";
import { loadPairs, loadSchedules } from "../../lib/cli/load_schedule.ts";
import { sizesOf } from "../../lib/schedules/check/sizes.ts";
import { toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-load-"));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};
const fixtures = fileURLToPath(new URL("../schedules/fixtures/", import.meta.url));

test("every bench takes every schedule of the zoo and PyTorch's files, each with its own placement", () => {
  const files = readdirSync(fixtures).filter((name) => name.endsWith(".csv")).map((name) => join(fixtures, name));
  const text = [...scheduleNames, ...files].join(",");
  for (const command of [throughput, memory, scaling, agreement]) {
    const flag = command.options.find(({ long }) => long === "--schedules")!;
    for (const name of scheduleNames) assert.ok(flag.description.includes(name), `${command.name()}: ${name}`);
    const names = flag.parseArg!<string[]>(text, []);
    const pairs = loadPairs(names, undefined, 2);
    assert.equal(pairs.length, names.length);
    for (const { base, split } of pairs) {
      assert.deepEqual([sizesOf(base).devices, sizesOf(base).split, sizesOf(split).split], [4, false, true]);
    }
    assert.deepEqual(pairs[names.indexOf("zb-v")].base.placement, [0, 1, 2, 3, 3, 2, 1, 0]);
  }
});

test("schedules are for as many ranks as the command line says, else as a file has rows, else as usual", () => {
  const three = file("three.csv", toCsv(generate("zb-v", { devices: 3 })));
  const ranks = (...args: Parameters<typeof loadSchedules>) =>
    loadSchedules(...args).map(({ actions }) => actions.length);
  assert.deepEqual(ranks(["naive", "zb-v"], undefined, 2), [2, 2]);
  assert.deepEqual(ranks(["naive", "zb-v"], 5, 2), [5, 5]);
  assert.deepEqual(ranks(["naive", three], undefined, 2), [3, 3]);
  assert.deepEqual(ranks([three], 3, 2), [3]);
  for (
    const [[devices, , replicas], message] of [
      [
        [2, 2],
        /three\.csv is a schedule of 3 ranks, a row for each, and 2 ranks are asked for: give --devices 3, or leave it out$/,
      ],
      [[1, 2], /is a schedule of 3 ranks, a row for each, and 1 rank is asked for: give --devices 3, or leave it out$/],
      [
        [1, 2, 2],
        /3 ranks, a row for each, and 2 devices in 2 replicas make 1 rank each: give --devices 6, or leave it out$/,
      ],
    ] as [[number, number, number?], RegExp][]
  ) assert.throws(() => loadSchedules([three], devices, 2, { replicas }), { name: "UserError", message });
  const four = file("four.csv", toCsv(generate("gpipe", { devices: 4 })));
  assert.throws(
    () => loadSchedules([three, four], undefined, 2),
    { name: "UserError", message: "three is for 3 ranks, and four for 4: run them one at a time" },
  );
  const twin = file("zb-v.csv", toCsv(generate("zb-v", { devices: 3 })));
  assert.throws(
    () => loadSchedules(["zb-v", twin], undefined, 2),
    {
      name: "UserError",
      message: "Two schedules are called zb-v, and no table could tell them apart: rename the file",
    },
  );
});

test("of several files, the one that is no schedule is named", () => {
  const good = file("good.csv", toCsv(generate("gpipe", { devices: 2 })));
  for (const text of ["", "0F0,0Z0\n", "0F0\n1F0,1B0\n", "0F0\n1F0\n"]) { // the last is one, of forward passes alone
    const bad = file("bad.csv", text);
    assert.throws(
      () => loadSchedules([good, bad], undefined, 2),
      ({ name, message }: Error) => name === "UserError" && message.startsWith(`${bad}: `) && !message.includes("\n"),
    );
  }
});

test("a file that is called like a schedule is none: GPipe's way of 2BP is for the generator's", () => {
  const path = file("gpipe.csv", toCsv(generate("gpipe", { devices: 2 })));
  assert.deepEqual(loadPairs([path], undefined, 2).map(({ split }) => split.policy), ["fill"]);
  assert.deepEqual(loadPairs(["gpipe"], undefined, 2).map(({ split }) => split.policy), ["end"]);
});
