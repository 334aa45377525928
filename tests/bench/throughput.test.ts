import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import type { MemoryReport } from "../../lib/measure/memory.ts";
import type { ThroughputReport } from "../../lib/measure/throughput_report.ts";
import { median } from "../../lib/measure/statistics.ts";
import { toCsv } from "../../lib/schedules/csv/csv.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { program, start } from "../spawn.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-bench-"));
after(() => rmSync(folder, { recursive: true }));

const { run: bench, close } = program("bench/main.ts");
after(close);

test("bench explains every bad argument in one line on standard error, with exit code 2 and no file written", async () => {
  const empty = join(folder, "empty.txt");
  writeFileSync(empty, "");
  const output = join(folder, "out.json");
  const cases: [string[], RegExp][] = [
    [["--devices", "0"], /--devices.*'0' is invalid\. It must be a whole number from 1 to 64\.$/],
    [["--devices", "99"], /--devices.*'99' is invalid\. It must be a whole number from 1 to 64\.$/],
    [["--devices", "two"], /--devices.*'two' is invalid/],
    [["--devices", "4", "--replicas", "3"], /--devices 4 cannot be cut into 3 replicas of as many ranks/],
    [["--shard-optimizer"], /--shard-optimizer is about several replicas; add --replicas$/],
    [["--devices", "16"], /llama-tiny has 10 layers, which cannot be cut into 16 stages$/],
    [["--model", "nope"], /--model.*"nope" is not one of llama-tiny, .*bert-tiny, .*mamba-tiny, .*resnet-tiny, .*\.$/],
    [["--data", join(folder, "missing")], /Cannot read --data .*missing: there is no such file$/],
    [["--data", folder], /Cannot read --data .*: it is a folder, and this model reads a text$/],
    [["--data", empty], /The text has 0 bytes; a sequence needs at least 65$/],
    [["--schedules", "foo"], /Unknown schedule "foo", and no file of that name; the schedules are naive, gpipe, .*$/],
    [["--schedules", "naive,foo.csv"], /There is no file foo\.csv$/],
    [["--schedules", "naive,"], /--schedules.*There is nothing between two commas\.$/],
    [["--schedules", "naive,naive"], /--schedules.*"naive" is there twice\.$/],
    [["--precision", "bf16"], /--precision.*"bf16" is not one of f32, mixed\.$/],
    [["--sums", "i,w"], /--sums.*Who makes the sums must be one of "i", "w", or one of these for each stage/],
    [["--sums", "i/w/w"], /Who makes the sums must be .*a list of 2 of these/],
    [["--recompute", "both:0"], /--recompute.*Unknown recomputation "both:0"; there are none, activations, /],
    [["--repeats", "0"], /--repeats.*It must be a whole number from 1 to 10000\.$/],
    [
      ["--json", join(folder, "no", "such", "folder.json")],
      /Cannot write .*folder\.json: there is no directory .*such$/,
    ],
    [["--html", folder], /Cannot write .*: it is a directory; give the name of a file$/],
    [
      ["--latency", "5"],
      /--latency and --bandwidth are of links between virtual devices, and these are real: add --virtual$/,
    ],
    [["--quiet-check", "5"], /too many arguments/],
    [["--quiet-check=5"], /unknown option '--quiet-check=5'/],
    [["memory", "--quiet-check"], /unknown option '--quiet-check'$/],
    [["--colour"], /unknown option '--colour'$/],
    [["speed"], /too many arguments|unknown command/],
  ];
  for (const [args, message] of cases) {
    const { code, stderr, stdout } = await bench(...args, ...(args[0] === "--json" ? [] : ["--json", output]));
    const lines = stderr.split("\n").filter((line) => line && !line.startsWith("Warning: maxDynamic"));
    assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
    assert.equal(lines.length, 1, `${args.join(" ")}: ${stderr}`);
    assert.match(lines[0], message);
    assert.equal(stdout, "");
  }
  const [[args]] = cases;
  assert.deepEqual(await start("bench/main.ts", args).done, await bench(...args), "in a process of its own too");
  assert.deepEqual(readdirSync(folder), ["empty.txt"]);
});

test("bench --help explains every flag of throughput", async () => {
  const { code, stdout } = await bench("--help");
  assert.equal(code, 0);
  for (
    const flag of [
      "model",
      "devices",
      "virtual",
      "schedules",
      "repeats",
      "recompute",
      "sums",
      "data",
      "seed",
      "quiet-check",
      "json",
      "html",
    ]
  ) {
    assert.match(stdout, new RegExp(`--${flag}\\b.* {2,}\\w`), `--${flag}`);
  }
});

function assertContract(report: ThroughputReport, mode: string, devices: number, schedules: readonly string[]) {
  assert.deepEqual([report.schema, report.mode, report.devices], [1, mode, devices]);
  assert.deepEqual(report.rows.map((row) => [row.schedule, row.twoStage]), [
    ...schedules.flatMap((name) => [[name, false], [name, true]]),
  ]);
  for (const row of report.rows) {
    assert.ok(row.stepMs.min > 0 && row.stepMs.min <= row.stepMs.median && row.stepMs.median <= row.stepMs.max);
    const { each } = row.stepMs;
    assert.ok(Math.abs(median(each!) / row.stepMs.median - 1) < 1e-4 && each!.length === report.gains[0].pairs);
    assert.ok(Math.abs(median(row.bubbleRatios!) - row.bubbleRatio) < 1e-4);
    const samples = report.samples * row.microbatches;
    assert.ok(Math.abs(row.samplesPerSecond - samples / row.stepMs.median * 1000) < 1e-6 * row.samplesPerSecond);
    assert.ok(row.bubbleRatio > 0 && row.bubbleRatio < 1, `${row.schedule}: bubble ${row.bubbleRatio}`);
    assert.equal(row.peakBytes.length, devices);
    assert.ok(row.peakBytes.every((bytes) => bytes > 100_000));
  }
  assert.deepEqual(report.gains.map(({ schedule }) => schedule), schedules);
  for (const gain of report.gains) {
    assert.ok(gain.spread[0] <= gain.gain && gain.gain <= gain.spread[1]);
    const [without, split] = report.rows.filter((row) => row.schedule === gain.schedule).map(({ stepMs }) =>
      stepMs.each!
    );
    for (const [at, ratio] of gain.ratios!.entries()) {
      // Two times and their ratio are kept with five digits: each is off by at most 5e-5 of itself.
      assert.ok(Math.abs(ratio - without[at] / split[at]) <= 1.501e-4 * ratio, "the pairs in the order taken");
    }
    assert.equal(gain.interval === undefined, gain.pairs < 6);
    if (gain.interval) assert.ok(gain.interval[0] <= gain.gain && gain.gain <= gain.interval[1]);
    const product = gain.bubbleGain * gain.batchingGain * gain.rest;
    assert.ok(Math.abs(product - gain.gain) < 1e-9, `${gain.schedule}: ${product} is not ${gain.gain}`);
    assert.ok(Math.abs(gain.bubbleGain * gain.batchingGain - gain.predicted) < 1e-9);
  }
}

test("bench writes the JSON of the contract, a page and a folder of all forms for a real run on two devices", async () => {
  const json = join(folder, "real.json"), html = join(folder, "real.html"), out = join(folder, "real");
  const schedules = ["naive", "1f1b-1"];
  const args = [
    "--repeats",
    "6",
    "--samples",
    "1",
    "--schedules",
    schedules.join(),
    "--recompute",
    "activations:2",
    "--quiet-check",
  ];
  const { code, stdout, stderr } = await bench(...args, "--json", json, "--html", html, "--out", out);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(readFileSync(json, "utf8"));
  assertContract(report, "real", 2, schedules);
  assert.ok(report.rows.every(({ recompute }: { recompute: string }) => recompute === "activations:2"));
  assert.ok(report.unexplained < 0.5, `unexplained ${report.unexplained}`);
  assert.equal(report.model.name, "llama-tiny");
  assert.equal(report.gains[0].pairs, 6);
  const { noise, cores } = report.machine;
  assert.ok(noise.busyCores >= 0 && noise.busyCores <= cores + 0.1 && noise.cores === cores);
  assert.ok(noise.productMs.quartiles[0] > 0 && noise.productMs.quartiles[0] <= noise.productMs.median);
  assert.match(stdout, noise.quiet ? /^The machine is quiet: /m : /^The machine is not quiet: /m);
  assert.match(report.machine.commit, /^[0-9a-f]{7,}( with changes)?$/);
  assert.ok(report.loss.last < report.loss.first);
  assert.match(stdout, /real devices.*recomputed: activations:2/);
  const page = readFileSync(html, "utf8");
  assert.match(page, /Throughput, 2 real devices/);
  assert.match(page, /<footer>bench --repeats 6 .*; twobp 0.*, commit [0-9a-f]+/);
  const tables = ["gain-of-2bp", "throughput"].flatMap((name) => ["csv", "md", "tex"].map((form) => `${name}.${form}`));
  const figures = ["pdf", "png", "svg"].map((form) => `throughput.${form}`);
  assert.deepEqual(readdirSync(out).sort(), [...tables, ...figures, "index.html", "index.md", "report.json"].sort());
  assert.deepEqual(JSON.parse(readFileSync(join(out, "report.json"), "utf8")).gains, report.gains);
  assert.match(
    readFileSync(join(out, "gain-of-2bp.csv"), "utf8"),
    /^schedule,gain,quartiles,95 % interval,pairs,.*\nnaive,\d\.\d{3},\d\.\d{3} - \d\.\d{3},\d\.\d{3} - \d\.\d{3},6,/,
  );
});

test("bench takes a schedule on a V and a CSV file beside the others, each on its own placement", async () => {
  const csv = join(folder, "mine.csv");
  writeFileSync(csv, toCsv(generate("dualpipe-v", { devices: 3 })));
  const args = ["--schedules", `naive,zb-v,${csv}`, "--virtual", "--repeats", "1", "--samples", "1", "--json", "-"];
  const { code, stdout, stderr } = await bench(...args);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(stdout) as ThroughputReport;
  assertContract(report, "virtual", 3, ["naive", "zb-v", "mine"]); // as many ranks as the file has rows
  assert.deepEqual(report.rows.map(({ joined = false, policy = "" }) => [joined, policy]), [
    [false, ""],
    [false, "fill"],
    [true, ""],
    [false, ""],
    [true, ""],
    [false, ""],
  ]);
  assert.match(
    stderr,
    /zb-v, mine are split by themselves: without 2BP is the same order with each I and its W as one B/,
  );
  rmSync(csv);
});

test("bench memory takes a schedule on a V and a CSV file too, and measures what it predicts", async () => {
  const csv = join(folder, "mine.csv");
  writeFileSync(csv, toCsv(generate("interleaved-1f1b", { devices: 2 })));
  const { code, stdout, stderr } = await bench(
    "memory",
    "--schedules",
    `zb-v,${csv}`,
    "--policies",
    "end",
    "--virtual",
    "--json",
    "-",
  );
  rmSync(csv);
  assert.equal(code, 0, stderr);
  const { rows } = JSON.parse(stdout) as MemoryReport;
  assert.deepEqual(rows.map(({ schedule, twoStage, joined, policy }) => [schedule, twoStage, joined, policy]), [
    ["zb-v", false, true, undefined],
    ["zb-v", true, undefined, undefined],
    ["mine", false, undefined, undefined],
    ["mine", true, undefined, "end"],
  ]);
  for (const { devices } of rows) {
    for (const { predictedPeak, measuredPeak } of devices) {
      // Messages wait for their receiver for as long as it happens to take.
      assert.ok(Math.abs(predictedPeak / measuredPeak! - 1) <= 0.05, `${predictedPeak} against ${measuredPeak}`);
    }
  }
});

test("bench trains a model of each family, and the loss falls", async () => {
  for (const model of ["bert-tiny", "mamba-tiny", "resnet-tiny"]) {
    const args = ["--model", model, "--repeats", "3", "--samples", "4", "--schedules", "1f1b-1", "--json", "-"];
    const { code, stdout, stderr } = await bench(...args);
    assert.equal(code, 0, stderr);
    const report = JSON.parse(stdout);
    assertContract(report, "real", 2, ["1f1b-1"]);
    const parts = ["to load", "to open devices", "for the first step of each, which is not counted", "for the pairs"];
    assert.match(stderr, new RegExp(`^Time: ${parts.map((part) => `\\d+\\.\\d s ${part}`).join(", ")}\\.$`, "m"));
    assert.equal(report.model.name, model);
    assert.ok(report.loss.last < report.loss.first, `${model}: ${report.loss.first} to ${report.loss.last}`);
  }
});

test("bench memory predicts a full model without a device, and agrees with a run of a tiny one", async () => {
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await bench(
      "memory",
      "--schedules",
      "1f1b-1",
      "--policies",
      "fill",
      "--json",
      "-",
      ...args,
    );
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as MemoryReport;
  };
  const planned = await run("--predict", "--model", "llama-7b", "--devices", "4", "--samples", "1");
  assert.deepEqual([planned.schema, planned.mode, planned.model.parameters], [1, "predicted", 6_738_415_616]);
  const parameters = planned.rows[0].devices.reduce((sum, { predicted }) => sum + predicted.parameters, 0);
  assert.ok(Math.abs(parameters / (4 * 6_738_415_616) - 1) < 1e-3, `${parameters} bytes of parameters`);
  const { rows: makers } = await run("--predict", "--sums", "i,w,i/w");
  assert.deepEqual(makers.map(({ twoStage, sums }) => [twoStage, sums]), [
    [false, "i"],
    ...["i", "w", "i/w"].map((sums) => [true, sums]),
  ]);
  const [i, w, both] = makers.slice(1).map(({ devices }) => devices.map(({ predictedPeak }) => predictedPeak));
  assert.ok(w[0] > i[0] && w[1] > i[1]);
  assert.deepEqual(both, [i[0], w[1]]);
  const { rows: kept } = await run("--predict", "--recompute", "none,both:2,both");
  assert.deepEqual(kept.map(({ twoStage, recompute }) => [twoStage, recompute]), [
    ...[false, true].flatMap((split) => ["none", "both:2", "both"].map((what) => [split, what])),
  ]);
  const peaks = kept.map(({ devices }) => devices[0].predictedPeak);
  assert.ok(peaks[3] > peaks[4] && peaks[4] > peaks[5], `peaks of ${peaks}`);
  for (const { devices } of (await run()).rows) {
    for (const { predictedPeak, measuredPeak } of devices) {
      assert.ok(Math.abs(predictedPeak / measuredPeak! - 1) <= 0.02, `${predictedPeak} against ${measuredPeak}`);
    }
  }
});

test("bench takes --precision mixed: half the activations of LLaMa-7B, and a run that says what it trained in", async (t) => {
  const memory = async (precision: string) => {
    const args = ["--predict", "--model", "llama-7b", "--devices", "4", "--samples", "1", "--policies", "fill"];
    const { code, stdout, stderr } = await bench(
      "memory",
      ...args,
      "--schedules",
      "gpipe",
      "--json",
      "-",
      "--precision",
      precision,
    );
    assert.equal(code, 0, stderr);
    const report = JSON.parse(stdout) as MemoryReport;
    assert.equal(report.precision, precision);
    return report.rows[0].devices[1].predicted;
  };
  const [full, mixed] = [await memory("f32"), await memory("mixed")];
  assert.ok(mixed.activations < 0.52 * full.activations, `${mixed.activations} of ${full.activations}`);
  assert.equal(mixed.gradients, full.gradients);

  const set = await openDevices(1);
  const { f16 } = set.devices[0].gpu.info;
  set.close();
  const run = await bench(
    "--precision",
    "mixed",
    "--schedules",
    "naive",
    "--repeats",
    "2",
    "--samples",
    "1",
    "--json",
    "-",
  );
  if (f16) {
    assert.equal(run.code, 0, run.stderr);
    assert.equal(JSON.parse(run.stdout).precision, "mixed");
  } else {
    assert.deepEqual([run.code, run.stderr.trim().split("\n").length], [2, 1]);
    assert.match(run.stderr, /Mixed precision needs 16-bit floats in shaders/);
    t.diagnostic("this device has no f16");
  }
});

test("bench composes four virtual devices, with slower links making slower steps", async () => {
  const run = async (...links: string[]) => {
    const args = [
      "--virtual",
      "--devices",
      "4",
      "--repeats",
      "2",
      "--samples",
      "1",
      "--schedules",
      "gpipe",
      "--json",
      "-",
    ];
    const { code, stdout, stderr } = await bench(...args, ...links);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as ThroughputReport;
  };
  const free = await run(), slow = await run("--latency", "1000000");
  assertContract(free, "virtual", 4, ["gpipe"]);
  assert.equal(free.unexplained, null);
  // Six links lie on the critical path of GPipe: three down with the activations, three up with the gradients.
  const added = slow.rows[0].stepMs.median - free.rows[0].stepMs.median;
  assert.ok(added > 5000 && added < 7000, `links of a second add ${added} ms`);
});
