import assert from "node:assert/strict";
import { test } from "node:test";
import { runGuarded } from "../../lib/cli/guarded.ts";
import { start } from "../spawn.ts";

const doctor = (args: readonly string[], env: Record<string, string | undefined> = {}) =>
  start("lib/cli/doctor.ts", args, env).done;

test("doctor explains bad arguments in one line with exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["--quik"], /^doctor: unknown option '--quik'/],
    [["--quick", "--all"], /^doctor: --quick and --all contradict each other: give one of the two$/],
  ];
  const ended = await Promise.all(cases.map(([args]) => doctor(args)));
  for (const [index, { code, stdout, stderr }] of ended.entries()) {
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr.trimEnd(), cases[index][1]);
    assert.equal(stderr.trimEnd().split("\n").length, 1, stderr);
  }
});

test("doctor ends with code 1 where no device can be opened, says why and what to do, and writes all of it as JSON", async () => {
  const { code, stdout, stderr } = await doctor(["--quick", "--json", "-"], {
    TWOBP_DRIVER: "system",
    VK_DRIVER_FILES: "/no/such/driver.json",
  });
  assert.equal(code, 1, stderr);
  const { schema, works, problem, drivers, findings, machine, command } = JSON.parse(stdout);
  assert.deepEqual([schema, works, command], [1, false, "doctor --quick --json -"]);
  assert.match(problem, /^No device on the driver "system": /);
  assert.equal(typeof machine.processor, "string");
  assert.equal(drivers.find(({ driver }: { driver: string }) => driver === "system").adapter, undefined);
  const said = findings.map(({ what, remedy }: { what: string; remedy: string }) => `${what} ${remedy}`).join("\n");
  assert.match(said, /Unset TWOBP_DRIVER \(it is "system"\)|mesa-vulkan-drivers/);
  assert.match(stderr, /A training step of a pipeline does NOT run here as it should\./);
  assert.match(stderr, /WRONG +Devices cannot be used/);
});

test("a process that crashes is said to have, with what it was doing; one that ends by itself keeps its code", async () => {
  const program = new URL("crash_program.ts", import.meta.url);
  assert.deepEqual(await runGuarded(program, ['the driver "gpu"']), { crashedDuring: 'the driver "gpu"' });
  assert.deepEqual(await runGuarded(program, ["kernels", "1"]), { code: 1 });
  assert.deepEqual(await runGuarded(program, ["", "0"]), { code: 0 });
});
