import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { difference, interleave, type PeerRow, ratio, summary } from "../../bench/peers/compare.ts";
import { gptSizes } from "../../bench/peers/gpt.ts";
import { program } from "../spawn.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

test("interleave() gives each contender a turn in each round, and each the first turn in turn", async () => {
  const order: string[] = [];
  let clock = 0;
  const job = (name: string, takes: number) => () => {
    order.push(name);
    clock += takes;
    return Promise.resolve();
  };
  const times = await interleave([job("a", 1), job("b", 2), job("c", 5)], 4, () => clock);
  assert.equal(order.join(""), "abcbcacababc");
  assert.deepEqual(times, [[1, 1, 1, 1], [2, 2, 2, 2], [5, 5, 5, 5]]);
});

test("ratio() pairs the times of a round, so that a machine that slows down slows both", () => {
  const own = [1, 10, 2, 4, 1], theirs = [3, 30, 8, 12, 2];
  assert.deepEqual(ratio("j", "p", own, theirs), {
    ...{ job: "j", peer: "p", ratio: 3, spread: [3, 3], pairs: 5 },
    ratios: [3, 3, 4, 3, 2],
  });
  assert.deepEqual(ratio("j", "p", [...own, 1], [...theirs, 3]).interval, [2, 4]);
  assert.deepEqual(summary([4, 1, 3, 2, 5]), { median: 3, quartiles: [2, 4], min: 1, each: [4, 1, 3, 2, 5] });
});

test("difference() is relative to the largest element, and infinite for what does not compare", () => {
  assert.equal(difference([0, 4, -8], [0, 5, -8]), 1 / 8);
  assert.equal(difference([1, 2], [1, 2]), 0);
  assert.equal(difference([1, 2], [1, NaN]), Infinity);
  assert.equal(difference([1, 2], [1]), Infinity);
  assert.equal(difference([1, 2], undefined), Infinity);
});

test("torch.py trains the same model as the others, and multiplies the same sizes", () => {
  const script = readFileSync(`${root}/bench/peers/torch.py`, "utf8");
  const { vocabulary, width, blocks, heads, hidden, length } = gptSizes;
  assert.match(script, new RegExp(` = ${[vocabulary, width, blocks, heads, hidden, length, 8].join(", ")}, 1e-3\n`));
  const command = readFileSync(`${root}/bench/peers/command.ts`, "utf8");
  const [, sizes] = /defaultSizes =\s*"([^"]+)"/.exec(command)!;
  assert.ok(script.includes(`SIZES = "${sizes}"`), sizes);
});

test("bench peers --alone measures this project without any peer, and compares it with none", async () => {
  const { run, close } = program("bench/main.ts");
  const { code, stdout, stderr } = await run(
    ...["peers", "--alone", "--sizes", "64x64x64", "--repeats", "1", "--json", "-"],
  );
  await close();
  assert.equal(code, 0, stderr);
  const { rows, ratios } = JSON.parse(stdout);
  assert.deepEqual(rows.map(({ job, contender, runs }: PeerRow) => [job, contender, runs]), [
    ["matmul 64x64x64", "twobp", 1],
    ["training step", "twobp", 1],
  ]);
  assert.deepEqual(ratios, []);
});

test("bench peers explains bad sizes and missing packages in one line, with exit code 2", async () => {
  const { run, close } = program("bench/main.ts");
  const cases: [string[], RegExp][] = [[["--sizes", "8x8"], /--sizes.*"8x8" is not a size like 512x384x128\.$/m]];
  if (!existsSync(`${root}/bench/peers/node_modules`)) {
    cases.push([["--repeats", "1"], /The peers are not installed .* run "deno task peers:install" once$/m]);
  }
  for (const [args, message] of cases) {
    const { code, stderr } = await run("peers", ...args);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
  }
  await close();
});
