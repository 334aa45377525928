import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { commitOf, describeMachine, machineText } from "../../lib/measure/machine.ts";

const packageJson = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const folder = mkdtempSync(join(tmpdir(), "twobp-machine-"));
after(() => rmSync(folder, { recursive: true }));
const git = (...args: string[]) =>
  execFileSync("git", ["-C", folder, "-c", "user.name=n", "-c", "user.email=e", ...args], { encoding: "utf8" }).trim();

test("a result names the commit, says where the sources differ from it, and is silent outside of a checkout", () => {
  assert.equal(commitOf(folder), undefined);
  git("init", "--quiet");
  assert.equal(commitOf(folder), undefined, "no commit yet");
  writeFileSync(join(folder, "a.ts"), "1");
  git("add", ".");
  git("commit", "--quiet", "--message", "one");
  const commit = git("rev-parse", "--short", "HEAD");
  writeFileSync(join(folder, "report.json"), "{}"); // what a run writes is no change
  assert.equal(commitOf(folder), commit);
  writeFileSync(join(folder, "a.ts"), "2");
  assert.equal(commitOf(folder), `${commit} with changes`);
  const installed = join(folder, "node_modules", "twobp");
  mkdirSync(installed, { recursive: true });
  assert.equal(commitOf(installed), undefined, "a package is not of the commit of the project that it is installed in");
});

test("the machine says the version of this package, in its fields and in its line", () => {
  const machine = describeMachine();
  assert.equal(machine.twobp, packageJson.version);
  const line = machineText({ ...machine, commit: "abc1234 with changes", processor: "P", cores: 2, date: "D" });
  assert.equal(
    line,
    `twobp ${packageJson.version}, commit abc1234 with changes; ${machine.runtime}, webgpu ${machine.webgpu}; ` +
      `P, 2 cores, ${machine.platform}; D`,
  );
});
