import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileNames } from "../../lib/report/run_folder.ts";
import { program } from "../spawn.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-outputs-"));
after(() => rmSync(folder, { recursive: true }));

const { run: schedule, close } = program("lib/cli/schedule.ts");
after(close);

test("--out writes everything of a run into one folder, and every file says how it came to be", async () => {
  const out = join(folder, "run");
  mkdirSync(out); // an empty folder is as good as none
  const { code, stderr } = await schedule("show", "1f1b-1", "--devices", "2", "--two-stage", "--out", out);
  assert.equal(code, 0, stderr);
  const figures = ["1f1b-1", "1f1b-1-2bp-fill"].flatMap((name) =>
    ["pdf", "png", "svg"].map((form) => `${name}.${form}`)
  );
  const tables = ["csv", "md", "tex"].map((form) => `in-numbers.${form}`);
  const others = ["index.html", "index.md", "report.json", "schedule.csv", "trace.json"];
  assert.deepEqual(readdirSync(out).sort(), [...figures, ...tables, ...others].sort());
  assert.deepEqual(readdirSync(folder), ["run"], "nothing beside it");
  if (process.platform !== "win32") {
    assert.equal(statSync(out).mode & 0o055, 0o055 & ~process.umask(), "others may read it");
  }
  const { command, machine } = JSON.parse(readFileSync(join(out, "report.json"), "utf8"));
  assert.equal(command, `schedule show 1f1b-1 --devices 2 --two-stage --out ${out}`);
  for (const name of ["index.html", "index.md", "in-numbers.md", "in-numbers.tex", "1f1b-1.svg", "1f1b-1.png"]) {
    const text = readFileSync(join(out, name), "utf8");
    assert.ok(text.includes(`${command}; twobp ${machine.twobp}`) && text.includes(machine.date), name);
  }
});

test("--out refuses before anything runs what it could not write or would write over, in one line", async () => {
  const full = join(folder, "full"), file = join(folder, "file");
  mkdirSync(full);
  writeFileSync(join(full, "a"), "kept");
  writeFileSync(file, "kept");
  const cases: [string, RegExp][] = [
    [full, /Cannot write .*full: there is something in it; give the name of a new folder$/],
    [file, /Cannot write .*file: it is a file; --out makes a folder$/],
    [join(folder, "no", "such"), /Cannot write .*such: there is no directory .*no$/],
    ["-", /--out needs the name of a folder$/],
    ["", /--out needs the name of a folder$/],
  ];
  for (const [path, message] of cases) {
    const { code, stdout, stderr } = await schedule("show", "gpipe", "--out", path);
    assert.deepEqual([code, stdout], [2, ""], path);
    assert.match(stderr.trimEnd(), message);
  }
  assert.equal(readFileSync(join(full, "a"), "utf8") + readFileSync(file, "utf8"), "keptkept");
  assert.deepEqual(readdirSync(folder).sort(), ["file", "full", "run"]);
});

test("names of files are small letters, digits and hyphens, and no two the same", () => {
  assert.deepEqual(
    fileNames(["Gain of 2BP", "Gain: of 2BP!", "../../etc", "report", "%", "x".repeat(300)]),
    ["gain-of-2bp", "gain-of-2bp-2", "etc", "report-2", "section", "x".repeat(80)],
  );
});
