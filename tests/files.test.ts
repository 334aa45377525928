import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { fileProblem, makeFolderWhole, temporaryName, writeFileWhole } from "../lib/files.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-files-"));
after(() => rmSync(root, { recursive: true, force: true }));

test("a file whose writing fails keeps what it had, and nothing is left beside it", () => {
  const folder = join(root, "file");
  mkdirSync(folder);
  const path = join(folder, "result.json");
  writeFileWhole(path, (file) => void writeSync(file, "old"));
  assert.throws(() =>
    writeFileWhole(path, (file) => {
      writeSync(file, "new, but");
      throw new Error("interrupted");
    }), /^Error: interrupted$/);
  assert.equal(readFileSync(path, "utf8"), "old");
  writeFileWhole(path, (file) => void writeSync(file, "new"));
  assert.deepEqual([readFileSync(path, "utf8"), readdirSync(folder)], ["new", ["result.json"]]);
});

test("temporary files of dead processes are swept, those of others and of other files stay", () => {
  const folder = join(root, "sweep");
  mkdirSync(folder);
  const name = (file: string, host: string, pid: number) => `.${file}.${host.slice(0, 60)}.${pid}.3.tmp`;
  const dead = 4_194_305; // above the most that Linux gives
  const kept = [
    name("a.json", hostname(), process.ppid),
    name("a.json", "elsewhere", dead),
    name("b.json", hostname(), dead),
    ".a.json.tmp",
    "a.json.tmp",
  ];
  const left = [name("a.json", hostname(), dead), name("a.json", hostname(), process.pid)]; // its number was another's
  for (const each of [...left, ...kept]) writeFileSync(join(folder, each), "half");
  writeFileWhole(join(folder, "a.json"), (file) => void writeSync(file, "whole"));
  assert.deepEqual(readdirSync(folder).sort(), [...kept, "a.json"].sort());
});

test("a folder is there whole or not at all, and one that another process made is kept if it is good", async () => {
  const folder = join(root, "folder");
  mkdirSync(folder);
  const target = join(folder, "made");
  const fill = (text: string) => (path: string) => writeFileSync(join(path, "content"), text);
  const content = () => readFileSync(join(target, "content"), "utf8");
  await assert.rejects(
    makeFolderWhole(target, (path) => {
      fill("half")(path);
      throw Object.assign(new Error("full"), { code: "ENOSPC" });
    }, () => Promise.resolve(false)),
    { code: "ENOSPC" },
  );
  assert.deepEqual(readdirSync(folder), []);
  await makeFolderWhole(target, fill("first"), () => Promise.resolve(false));
  assert.equal(content(), "first");
  assert.equal(statSync(target).mode & 0o077, 0);
  await makeFolderWhole(target, fill("second"), () => Promise.resolve(true));
  assert.equal(content(), "first");
  await makeFolderWhole(target, fill("third"), () => Promise.resolve(false));
  assert.equal(content(), "third");
  await assert.rejects(makeFolderWhole(join(folder, "missing/made"), fill("x"), () => Promise.resolve(false)), {
    code: "ENOENT",
  });
  assert.deepEqual(readdirSync(folder), ["made"]);
});

test("a temporary name fits a folder, however long the file's name is", () => {
  assert.ok(temporaryName(`/folder/${"x".repeat(255)}`).length < 255);
});

test("a problem with a file is told in words, in one line", () => {
  const problem = (code: string) => fileProblem(Object.assign(new Error("as the system\nhas it"), { code }));
  assert.equal(problem("ENOENT"), "there is no such file");
  assert.equal(problem("ENOSPC"), "the disk is full");
  assert.equal(problem("EDQUOT"), "the disk quota is used up");
  assert.equal(problem("EROFS"), "the file system is read-only");
  assert.equal(problem("EACCES"), "permission denied");
  assert.equal(problem("EXYZ"), "as the system has it");
});
