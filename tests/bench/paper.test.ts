/** `deno task bench paper`, end to end. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { PaperReport } from "../../lib/measure/paper/report.ts";
import { program } from "../spawn.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-paper-"));
after(() => rmSync(folder, { recursive: true }));

const { run, close } = program("bench/main.ts");
after(close);
const paper = (...args: string[]) => run("paper", ...args);

test("bench paper writes one folder: the report, a page, a summary and figures", async () => {
  const out = join(folder, "results");
  const { code, stdout, stderr } = await paper(
    ...["--models", "paper-transformer", "--size", "twin", "--devices", "2", "--ranks", "2,3", "--schedules", "1f1b-1"],
    ...["--policies", "paper,lean", "--steps", "1", "--repeats", "1", "--out", out],
  );
  assert.equal(code, 0, stderr);
  const files = readdirSync(out, { recursive: true, encoding: "utf8" });
  for (const file of ["report.json", "index.html", "index.md"]) assert.ok(files.includes(file), file);
  for (const heading of ["gain-of-2bp", "memory-of-2bp", "where-the-gain-comes-from", "ranks"]) {
    for (const ending of ["png", "svg", "pdf"]) {
      assert.ok(files.some((file) => file.includes(heading) && file.endsWith(`.${ending}`)), `${heading} ${files}`);
    }
  }
  const report: PaperReport & { command: string; machine: object } = JSON.parse(
    readFileSync(join(out, "report.json"), "utf8"),
  );
  assert.deepEqual([report.schema, report.models.length], [1, 1]);
  assert.match(report.command, /^bench paper --models paper-transformer /);
  const [{ paper: asked, model, epochs, throughput, peaks, paperPeaks, scaling, ablation }] = report.models;
  assert.deepEqual([asked, model.name], ["paper-transformer", "paper-transformer-tiny"]);
  assert.deepEqual(
    epochs!.map(({ twoStage, policy, steps, samples }) => [twoStage, policy ?? "none", steps, samples]),
    [
      [false, "none", 1, 4],
      [true, "paper", 1, 4],
    ],
  );
  for (const { samples, ms, samplesPerSecond } of epochs!) {
    assert.ok(Math.abs(samplesPerSecond - samples / ms * 1000) < 1e-9 * samplesPerSecond);
  }
  assert.deepEqual(throughput!.map(({ samples, gains }) => [samples, gains[0].pairs]), [[2, 1]]);
  for (const rows of [peaks!, paperPeaks!]) {
    assert.deepEqual(rows.map(({ policy }) => policy ?? "none"), ["none", "paper", "lean"]);
  }
  for (const { measured, predicted } of peaks!) {
    measured!.forEach((bytes, rank) =>
      assert.ok(Math.abs(bytes / predicted[rank] - 1) < 0.02, `${bytes}, predicted ${predicted[rank]}`)
    );
  }
  assert.deepEqual(
    ablation!.map(({ schedule, devices, repeats, rungs }) => [schedule, devices, repeats, rungs.length]),
    [
      ["1f1b-1", 2, 1, 4], // on two ranks the paper's order has no wide W
    ],
  );
  const { ms, share } = ablation![0].stall;
  assert.ok(ms > 0 && share > 0.05 && share < 1, `${ms} ms are ${share} of a backward, asked for 0.2`);
  assert.deepEqual(scaling!.map(({ devices, pairs }) => [devices, pairs]), [[2, 1], [3, 1]]);
  for (const text of [stdout, readFileSync(join(out, "index.md"), "utf8")]) {
    assert.match(text, /1\.70-fold on four GPUs/);
    assert.match(text, /epoch: gain.*pairs: gain.*quartiles.*predicted.*= bubble.*epoch \/ pairs/);
    assert.match(text, /measured MiB.*paper-transformer: predicted GiB/);
  }
  assert.match(readFileSync(join(out, "index.md"), "utf8"), /!\[Gain of 2BP\]\(gain-of-2bp\.png\)/);
});

test("bench paper says which size it takes, and why no larger one", async () => {
  const { code, stdout, stderr } = await paper(
    ...["--models", "paper-transformer-16", "--devices", "2", "--schedules", "naive", "--policies", "paper"],
    ...["--parts", "throughput", "--steps", "1", "--repeats", "1", "--memory", "200MB", "--json", "-"],
  );
  assert.equal(code, 0, stderr);
  const [{ size }] = (JSON.parse(stdout) as PaperReport).models;
  assert.deepEqual(size!.tried.map(({ model, reason }) => [model, reason]), [
    ["paper-transformer-tiny", undefined],
    ["paper-transformer-8th", "memory"],
  ]);
  assert.match(stderr, /Size: paper-transformer-tiny, instead of paper-transformer-16\. It takes .* of 191 MiB, and /);
  assert.match(stderr, /Not paper-transformer-8th: it takes .* \(predicted\), there are 191 MiB\./);
});

test("bench paper explains bad arguments in one line, with exit code 2 and no folder made", async () => {
  const file = join(folder, "file"), made = join(folder, "made");
  writeFileSync(file, "");
  mkdirSync(join(folder, "empty"));
  const cases: [string[], RegExp][] = [
    [["--models", "llama-tiny"], /--models.*"llama-tiny" is not one of paper-transformer, paper-transformer-16, /],
    [["--parts", "speed"], /--parts.*"speed" is not one of throughput, memory, scaling, ablation\.$/],
    [["--size", "huge"], /--size.*"huge" is not one of largest, full, twin\.$/],
    [["--schedules", "zb-v"], /--schedules.*"zb-v" is not one of naive, gpipe, 1f1b-1, 1f1b-2\.$/],
    [["--policies", "paper,never"], /--policies.*Unknown policy "never"/],
    [["--devices", "1"], /--devices.*It must be a whole number from 2 to 16\.$/],
    [["--ranks", "4,32"], /--ranks.*It must be a whole number from 2 to 16\.$/],
    [["--ranks", "4,4"], /--ranks.*"4" is there twice\.$/],
    [["--minutes", "0"], /--minutes.*It must be a number from 0\.01 to 1440\.$/],
    [["--memory", "much"], /--memory.*"much" is not a number of bytes such as /],
    [
      ["--memory", "1kB", "--models", "paper-resnet-152"],
      /paper-resnet-152-tiny, the smallest of its kind, takes .* MiB, and there are 1000 B$/,
    ],
    [["--out", file], /Cannot write .*file: it is a file; --out makes a folder$/],
    [["--out", "-"], /--out needs the name of a folder$/],
    [["--out", join(folder, "no", "such")], /Cannot write .*such: there is no directory .*no$/],
    [["--out", join(file, "below")], /Cannot write .*below: .*file is not a directory$/],
  ];
  for (const [args, message] of cases) {
    const { code, stderr, stdout } = await paper(...args[0] === "--out" ? [] : ["--out", made], ...args);
    const lines = stderr.split("\n").filter((line) => line && !/^Warning: maxDynamic|^[-=]+ /.test(line));
    assert.equal(code, 2, `${args.join(" ")}: ${stderr}`);
    assert.equal(lines.length, 1, `${args.join(" ")}: ${stderr}`);
    assert.match(lines[0], message);
    assert.equal(stdout, "");
    assert.ok(!existsSync(made));
  }
});
