import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { program } from "../spawn.ts";

test("bench torch explains another model, and a Python that is not there or has no PyTorch, in one line with exit code 2", async () => {
  const { run, close } = program("bench/main.ts");
  const cases: [args: string[], message: RegExp][] = [
    [["--model", "gpt"], /--model.*"gpt" is not one of mlp, transformer\.$/m],
    [["--python", "no-such-python"], /no-such-python cannot run the schedules: .*ENOENT; --python names one/],
    // Deno knows no script of Python's.
    [["--python", process.execPath], /cannot run the schedules: .*; --python names one that has PyTorch$/m],
  ];
  for (const [args, message] of cases) {
    const { code, stderr } = await run("torch", ...args);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
    assert.match(stderr, /^[^\n]*\n$/);
  }
  await close();
});
