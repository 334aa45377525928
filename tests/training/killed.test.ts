import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import { generator } from "../../lib/random.ts";
import { lastWhole } from "../../lib/training/checkpoint_folder.ts";
import { start } from "../spawn.ts";

const root = mkdtempSync(join(tmpdir(), "twobp-killed-"));
after(() => rmSync(root, { recursive: true, force: true }));
const program = "tests/training/killed_program.ts";
const endOf = (stdout: string) => /end (\w+)/.exec(stdout)![1];

test("a training that is killed at random moments ends with the bits of one that never was", {
  skip: process.platform === "win32",
}, async () => {
  const steps = "120", random = generator("kills");
  const undisturbed = await start(program, [join(root, "whole"), steps]).done;
  assert.equal(undisturbed.code, 0, undisturbed.stderr);
  const folder = join(root, "killed");
  let before = 0, unfinished = 0;
  const isWriting = () => existsSync(folder) && readdirSync(folder).some((name) => name.endsWith(".tmp"));
  // Until two kills have come while a checkpoint was written: the others prove less, and half of them wait for that.
  for (let kill = 0; kill < 6 || (unfinished < 2 && kill < 30); kill++) {
    const { child, said, done } = start(program, [folder, steps]);
    await said(`step ${before + random.integer(4)}\n`);
    await new Promise((later) => setTimeout(later, 60 * random.uniform()));
    for (let wait = 0; kill % 2 > 0 && wait < 5000 && !isWriting(); wait++) {
      await new Promise((later) => setTimeout(later, 1));
    }
    process.kill(child.pid!, "SIGKILL");
    const { stdout, stderr } = await done;
    assert.equal(stderr, "");
    assert.ok(stdout.startsWith(`step ${before}\n`), `begins behind checkpoint ${before}: ${stdout}`);
    const damaged: string[] = [];
    before = Number(lastWhole(folder, damaged)?.description.step ?? 0);
    assert.deepEqual(damaged, [], "what has the name of a checkpoint is whole");
    unfinished += readdirSync(folder).filter((name) => name.endsWith(".tmp")).length;
  }
  assert.ok(unfinished > 1, "hardly a kill has come while a checkpoint was written, which would prove nothing");
  const last = await start(program, [folder, steps]).done;
  assert.equal(last.code, 0, last.stderr);
  assert.match(last.stdout, new RegExp(`resumed ${before}, damaged 0\n`));
  assert.equal(endOf(last.stdout), endOf(undisturbed.stdout));
  assert.deepEqual(readdirSync(folder).toSorted(), ["step-000119", "step-000120"], "and nothing is left of the others");
});
