/** `deno task bench gpu`: its parts, its summary, and the command end to end. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import type { GpuDay, Outcome } from "../../bench/gpu_day/outcome.ts";
import type { Part } from "../../bench/gpu_day/parts.ts";
import { runPart } from "../../bench/gpu_day/run_part.ts";
import { findingsOf } from "../../bench/gpu_day/found.ts";
import { summary } from "../../bench/gpu_day/summary.ts";
import { testCounts } from "../../bench/gpu_day/test_counts.ts";
import { flags, program } from "../spawn.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-gpu-day-"));
after(() => rmSync(folder, { recursive: true }));

const { run, close } = program("bench/main.ts");
after(close);
const gpu = (...args: string[]) => run("gpu", ...args);

test("tests are counted from what deno test prints, those of a run that was ended too, and steps and output are not", () => {
  const begun = [
    ...["running 3 tests from ./a.test.ts", "a ...", "------- output -------", "b ... FAILED (1ms)"],
    ...["----- output end -----", "  step ... ok (0ms)", "a ... ok (2ms)", "b ... fails ... FAILED (972µs)"],
    ...["c ... ignored (0ms)", "d ..."],
  ].join("\n");
  const counts = { schema: 1, passed: 1, failed: 1, ignored: 1, failures: ["b ... fails"], complete: false };
  assert.deepEqual(testCounts(begun), counts);
  const ended = `${begun}\nd ... ok (1s)\n\nFAILED | 2 passed (1 step) | 1 failed | 1 ignored (8ms)\n`;
  assert.deepEqual(testCounts(ended), { ...counts, passed: 2, complete: true });
});

/** A part that runs a few lines of TypeScript; `arguments[0]` is the file that its numbers go to. */
function partOf(name: string, lines: string, numbers?: Part["numbers"]): Part {
  const script = join(folder, `${name}.ts`);
  writeFileSync(script, `import { writeFileSync } from "node:fs";\nconst json = process.argv[2];\n${lines}\n`);
  return { name, what: "", weight: 1, numbers, command: ({ json }) => [process.execPath, ...flags, script, json] };
}

test("a part is done, fails with the line that says why, or runs out of time, and its files hold no path", async () => {
  const out = join(folder, "parts");
  mkdirSync(out);
  const hang = "setTimeout(() => {}, 60_000);";
  const cases: [Part, Outcome["status"], RegExp | undefined, seconds?: number][] = [
    [partOf("good", "writeFileSync(json, JSON.stringify({ json })); console.log(json);"), "done", undefined],
    [
      partOf("bad", 'console.error("==========---------- 1 of 2\\nthe device is lost"); process.exit(1);'),
      ...["failed", /^the device is lost$/] as const,
    ],
    [partOf("thrown", 'throw new Error("no such kernel");'), "failed", /Error: no such kernel/],
    [partOf("crashed", ""), "failed", /^its process ended before its results: a driver with a fault/],
    [{ ...partOf("absent", ""), command: () => ["no-such-program"] }, "failed", /no-such-program/],
    [
      partOf("finished", `writeFileSync(json, "{}"); ${hang}`),
      ...["done", /^its results were there when its time was over$/, 2] as const,
    ],
    [partOf("slow", hang), "out of time", /^ended after 2 s, its share of the time$/, 2],
    [
      partOf("cut", `console.log("a ... ok (1ms)\\nb ... ok (1ms)"); ${hang}`, testCounts),
      ...["done", /^only the first 2 tests fitted into the time$/, 3] as const,
    ],
    [
      partOf(
        "wrong",
        'console.log("a ... ok (1ms)\\nb ... FAILED (1ms)\\n\\nFAILED | 1 passed | 1 failed (2ms)");',
        testCounts,
      ),
      ...["failed", /^1 tests failed$/] as const,
    ],
  ];
  for (const [part, status, reason, seconds = 60] of cases) {
    const outcome = await runPart(part, out, { quick: true, seconds });
    assert.deepEqual([outcome.name, outcome.status, outcome.limit], [part.name, status, seconds], outcome.reason);
    if (reason) assert.match(outcome.reason!, reason);
    else assert.equal(outcome.reason, undefined);
    if (status === "out of time") assert.ok(outcome.seconds >= seconds && outcome.seconds < seconds + 10);
  }
  assert.deepEqual(JSON.parse(readFileSync(join(out, "good.json"), "utf8")), { json: join("FOLDER", "good.json") });
  assert.deepEqual(readdirSync(out).filter((name) => name.endsWith(".json")).sort(), [
    ...["cut.json", "finished.json", "good.json", "wrong.json"],
  ]);
  for (const name of readdirSync(out)) assert.ok(!readFileSync(join(out, name), "utf8").includes(out), name);
});

const machine = {
  ...{ processor: "a processor", cores: 16, platform: "linux x64", runtime: "Deno 2.9.6" },
  ...{ twobp: "0.1.0", webgpu: "0.6.2", date: "2026-11-28T00:00:00.000Z" },
};
const kernel = { operation: "matmul", dtype: "f32", unit: "GFLOP/s", quartiles: [1, 2] };
const square = { ...kernel, shape: "4096x4096x4096 NN f32 f32 f32 1" };

/** What parts might have left. */
const files: Record<string, object> = {
  doctor: {
    ...{ schema: 1, works: true, depth: "usual", drivers: [], ms: 1 },
    devices: {
      ...{ driver: "gpu", implementation: "dawn", version: "0.6.2", adapter: "A GPU", mode: "real" },
      ...{ software: false, f16: true, timestamps: true, subgroupSize: 32 },
    },
    rates: { gflops: 50_000, gigabytes: 2000, side: 4096, product: 10_000, halfProduct: 25_000 },
    findings: [{ kind: "slow", what: "Messages are slow.", remedy: "Take fewer." }],
  },
  ops: { schema: 1, passed: 40, failed: 1, ignored: 2, failures: ["rope() of *two* heads"], complete: false },
  products: {
    ...{ schema: 1, adapter: "A GPU", peak: { gflops: 50_000, gigabytes: 2000 }, left: 7 },
    rows: [
      { ...square, candidate: "plain", chosen: false, usual: true, ms: 20, rate: 6872, shareOfPeak: 0.137 },
      { ...square, candidate: "tiled", chosen: true, usual: false, ms: 10, rate: 13_744, shareOfPeak: 0.275 },
      { ...square, shape: "8x8x8", candidate: "plain", chosen: true, usual: true, ms: 1, rate: 1, shareOfPeak: 0.01 },
    ],
    dropped: [{ ...square, candidate: "matrix", reason: "wrong by 3" }],
  },
  half: {
    ...{ schema: 1, adapter: "A GPU", peak: { gflops: 50_000, gigabytes: 2000 }, dropped: [] },
    rows: [{
      ...{ ...kernel, shape: "4096x4096x4096 NN f16 f16 f16 1", dtype: "f16", candidate: "tiled", chosen: true },
      ...{ usual: true, ms: 5, rate: 27_488, shareOfPeak: 0.55 },
    }],
  },
  peers: { rows: [{ job: "matmul 4096x4096x4096", contender: "twobp", ms: { median: 10 }, gflops: 13_744, runs: 3 }] },
  torch: {
    rows: [
      { job: "matmul 4096x4096x4096", contender: "PyTorch 2.15.0, A GPU", ms: { median: 4 }, gflops: 34_360, runs: 3 },
      { job: "matmul 4096x4096x4096 f16", contender: "PyTorch 2.15.0, A GPU", ms: { median: 0.5 }, runs: 3 },
    ],
  },
};

test("the summary says what ran, what failed and why, shares of the peak, PyTorch's times, and what to do next", () => {
  const out = join(folder, "summary");
  mkdirSync(out);
  for (const [name, report] of Object.entries(files)) writeFileSync(join(out, `${name}.json`), JSON.stringify(report));
  const day: GpuDay = {
    ...{ schema: 1, command: "bench gpu --out FOLDER", machine, quick: false, minutes: 9 },
    parts: [
      { name: "doctor", status: "done", seconds: 10, limit: 30 },
      { name: "ops", status: "failed", seconds: 60, limit: 60, reason: "1 tests failed" },
      { name: "products", status: "done", seconds: 31.5, limit: 40 },
      {
        name: "scans",
        status: "out of time",
        seconds: 40,
        limit: 40,
        reason: "ended after 40 s, its share of the time",
      },
      { name: "torch", status: "skipped", seconds: 0, limit: 30, reason: "needs --python with PyTorch" },
    ],
  };
  const page = summary(day, findingsOf(out), (name) => `what ${name} does`);
  const has = (...lines: string[]) =>
    lines.forEach((line) => assert.ok(page.split("\n").includes(line), `${line}\n${page}`));
  has(
    "2 of 5 parts are done, in 2.36 minutes of 9 minutes; failed: ops; out of time: scans; skipped: torch.",
    "| products | what products does | done | 31.5 | 40 | no time for 7 problems |",
    "| scans | what scans does | out of time | 40.0 | 40 | ended after 40 s, its share of the time |",
    "- ops: 1 tests failed",
    "- scans: ended after 40 s, its share of the time",
    "| product of 4096 x 4096, by the rule | 10000 GFLOP/s, 20 % of the peak |",
    "ops: 40 passed, 1 failed, 2 ignored, until the time was over.",
    "- rope() of \\*two\\* heads",
    "| products | 2 | 50000 GFLOP/s | 14 % | 28 % (matmul) | 1 % (matmul) |",
    "| matmul | 4096x4096x4096 NN f32 f32 f32 1 | f32 | tiled | 10 | 1 - 2 | 13700 | GFLOP/s | 28 % | measured |",
    "| matmul 4096x4096x4096 | PyTorch 2.15.0, A GPU | 4 | 34400 | 0.40 |",
    "| matmul 4096x4096x4096 f16 | PyTorch 2.15.0, A GPU | 0.5 | - | 0.10 |",
    "- Messages are slow. Take fewer.",
    "- The kernel matrix of matmul (4096x4096x4096 NN f32 f32 f32 1) was dropped: wrong by 3.",
    "- Run again what is missing: deno task bench gpu --parts ops,scans --minutes 9 --out AGAIN.",
    "- More --minutes, or these --parts alone, for problems left out: products (7).",
    "- The rule takes plain for matmul 4096x4096x4096 NN f32 f32 f32 1, where tiled is 2.00 times as fast.",
    "- 1 problems are below 20 % of the peak, furthest matmul 8x8x8 (1.0 %).",
  );
  assert.ok(!page.includes("| plain | 20 |"), "kernels that were not chosen are not in it");
  for (const heading of ["Throughput", "The paper"]) assert.ok(!page.includes(`## ${heading}`), heading);
  // Where there are no numbers of peers, those of products stand beside PyTorch's.
  const { peers: _, ...found } = findingsOf(out);
  assert.ok(
    summary(day, found, () => "it").includes("| matmul 4096x4096x4096 | PyTorch 2.15.0, A GPU | 4 | 34400 | 0.40 |"),
  );
  // Whatever is not there is left out.
  const alone = summary({ ...day, parts: day.parts.slice(4) }, { tests: new Map(), kernels: new Map() }, () => "it");
  assert.match(alone, /^0 of 1 parts are done, in 0 s of 9 minutes; skipped: torch\.$/m);
  assert.deepEqual(alone.match(/^## .*$/gm), ["## What ran", "## What to do next"]);
});

test("bench gpu explains bad arguments in one line with exit code 2, and makes no folder", async () => {
  const made = join(folder, "made"), file = join(folder, "file"), full = join(folder, "full");
  writeFileSync(file, "");
  mkdirSync(full);
  writeFileSync(join(full, "something"), "");
  const cases: [string[], RegExp][] = [
    [["--parts", "speed"], /--parts.*"speed" is not one of doctor, ops, layers, products, .*, torch\.$/],
    [["--parts", "doctor,doctor"], /--parts.*"doctor" is there twice\.$/],
    [["--minutes", "0"], /--minutes.*It must be a number from 0\.01 to 1440\.$/],
    [["--python", "no-such-python"], /^bench: --python no-such-python cannot import torch: give a Python that has/],
    [["--out", file], /Cannot write .*file: it is a file; --out makes a folder$/],
    [["--out", full], /Cannot write .*full: there is something in it; give the name of a new folder$/],
    [["--out", join(folder, "no", "such")], /Cannot write .*such: there is no directory .*no$/],
  ];
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await gpu(...args[0] === "--out" ? [] : ["--out", made], ...args);
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr.trimEnd(), message);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
    assert.ok(!existsSync(made));
  }
});

test("bench gpu skips what cannot run here or has no time left, and says so", async () => {
  const out = join(folder, "skipped");
  const { code, stdout, stderr } = await gpu("--parts", "doctor,torch", "--minutes", "0.01", "--out", out);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^doctor: skipped, 0\.0 s: the time is over: 0\.\d s were left for it$/m);
  assert.match(stdout, /^torch: skipped, 0\.0 s: needs --python with PyTorch$/m);
  assert.deepEqual(readdirSync(out).sort(), ["report.json", "summary.md"]);
});

test("bench gpu leaves f16 out where doctor has found none", async () => {
  const out = join(folder, "no-f16");
  const bundled = program("bench/main.ts", { TWOBP_DRIVER: "bundled" }); // SwiftShader has no f16
  const { code, stdout, stderr } = await bundled.run("gpu", "--quick", "--parts", "doctor,half", "--out", out);
  await bundled.close();
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^half: skipped, 0\.0 s: the device has no 16-bit floats$/m);
});

test("bench gpu runs doctor and throughput and writes one folder with a summary, without paths of the machine", async () => {
  const out = join(folder, "day");
  const { code, stdout, stderr } = await gpu("--quick", "--parts", "doctor,throughput", "--minutes", "5", "--out", out);
  assert.equal(code, 0, stdout + stderr);
  const names = ["doctor.json", "doctor.txt", "report.json", "summary.md", "throughput.json", "throughput.txt"];
  assert.deepEqual(readdirSync(out).sort(), names);
  const day: GpuDay = JSON.parse(readFileSync(join(out, "report.json"), "utf8"));
  assert.deepEqual([day.schema, day.quick, day.minutes, day.parts.map(({ status }) => status)], [
    ...[1, true, 5],
    ["done", "done"],
  ]);
  assert.equal(day.command, "bench gpu --quick --parts doctor,throughput --minutes 5 --out FOLDER");
  assert.match(readFileSync(join(out, "doctor.txt"), "utf8"), /^A training step of a pipeline runs here and is right/);
  const page = readFileSync(join(out, "summary.md"), "utf8");
  assert.match(page, /^2 of 2 parts are done/m);
  assert.match(page, /## Throughput\n\nllama-tiny .* on 4 virtual devices/);
  assert.match(page, /\| 1f1b-1 \| fill, width 1 \| 4 \|/);
  for (const name of names) {
    const text = readFileSync(join(out, name), "utf8");
    assert.ok(!text.includes(folder), name);
  }
});
