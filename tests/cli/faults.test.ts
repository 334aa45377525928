import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { after, test } from "node:test";
import type { Faults } from "../faults.ts";
import { start } from "../spawn.ts";

const skip = process.env.TWOBP_WEBGPU === "deno" && "the faults are put into Dawn's objects";
const root = mkdtempSync(join(tmpdir(), "twobp-faults-"));
after(() => rmSync(root, { recursive: true }));

/** The last line of standard error, behind which nothing may come, a stack trace least of all. */
async function ended(faults: Faults, ...command: string[]) {
  const { code, stdout, stderr } = await start("tests/faulty_program.ts", [JSON.stringify(faults), ...command]).done;
  assert.doesNotMatch(stderr, /^ +at /m);
  return { code, stdout, last: stderr.trimEnd().split(/[\r\n]/).at(-1)! };
}

test("train ends with one line and code 1 where a device fails in the middle, and leaves whole checkpoints alone", {
  skip,
}, async () => {
  const text = join(root, "text.txt"), save = join(root, "run");
  writeFileSync(text, "To be, or not to be, that is the question\n".repeat(3000));
  const command = [
    "lib/cli/train.ts",
    "--data",
    text,
    "--samples",
    "1",
    "--steps",
    "3",
    "--save",
    save,
    "--save-every",
    "1",
  ];
  const full = await ended({ outOfMemoryAt: 100 }, ...command);
  assert.equal(full.code, 1);
  assert.match(
    full.last,
    /^train: Rank 1 failed at .*: out of memory: 32768 bytes of activations are not to be had for rank 1 at /,
  );
  const lost = await ended({ lostAtSubmission: 60 }, ...command);
  assert.equal(lost.code, 1);
  assert.match(lost.last, /^train: .*Rank [01] .*device lost \(unknown\): vkQueueSubmit failed/);
  const none = await ended({ noDeviceAt: 1 }, ...command);
  assert.equal(none.code, 2);
  assert.match(none.last, /^train: The driver "\w+" has .*, which gives no device: vkCreateDevice failed/);
  for (const name of readdirSync(save)) assert.match(name, /^step-\d{6}$/);
});

test("train and bench end with code 2 and the parameter's name where a device cannot bind it, before anything runs", {
  skip,
}, async () => {
  const text = join(root, "short.txt");
  writeFileSync(text, "To be, or not to be\n".repeat(300));
  const commands = [["lib/cli/train.ts", "--data", text, "--samples", "1", "--steps", "1"], [
    ...["bench/main.ts", "throughput", "--repeats", "1", "--samples", "1", "--schedules", "1f1b-1"],
  ]];
  for (const command of commands) {
    const { code, last } = await ended({ largestBuffer: 65_536 }, ...command);
    assert.equal(code, 2, last);
    assert.match(
      last,
      /^(train|bench): The model does not fit: Rank 0 \(.*\) allows 65536 bytes in one buffer, and the parameter "embedding\.weight" \[256, 128\] takes 131072; give it fewer/,
    );
  }
});

test(
  "bench throughput ends with one line and code 1, and doctor says what is wrong, where a device is lost",
  { skip },
  async () => {
    const bench = ["bench/main.ts", "throughput", "--repeats", "1", "--samples", "1", "--schedules", "1f1b-1"];
    const lost = await ended({ lostAtSubmission: 60 }, ...bench);
    assert.equal(lost.code, 1);
    assert.match(lost.last, /^bench: .*Rank [01] .*device lost \(unknown\): vkQueueSubmit failed/);
    const doctor = await ended({ lostAtSubmission: 40 }, "lib/cli/doctor_inside.ts", "--quick");
    assert.equal(doctor.code, 1);
    assert.match(doctor.stdout, /WRONG/);
    assert.match(doctor.stdout.replace(/\s+/g, " "), /device lost \(unknown\): vkQueueSubmit failed/);
  },
);
