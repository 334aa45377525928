import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { openDevices } from "../../lib/gpu/devices.ts";
import { withEnvironment } from "../../lib/gpu/environment.ts";
import { start } from "../spawn.ts";

test("openDevices() says in one line which of its options is none", async () => {
  const open = openDevices as (count: unknown, options?: unknown) => Promise<unknown>;
  const cases: [unknown, unknown, string][] = [
    [0, {}, "0 devices asked for; at least 1 is needed"],
    [NaN, {}, "NaN devices asked for; at least 1 is needed"],
    [undefined, {}, "undefined devices asked for; at least 1 is needed"],
    [1.5, {}, "1.5 devices asked for; it must be a whole number from 1 to 1024"],
    ["2", {}, "2 devices asked for; it must be a whole number from 1 to 1024"],
    [1e9, {}, "1000000000 devices asked for; it must be a whole number from 1 to 1024"],
    [Infinity, { virtual: true }, "Infinity devices asked for; it must be a whole number from 1 to 1024"],
    [2, { Virtual: true }, 'openDevices: there is no "Virtual"; there are virtual, driver'],
    [2, null, "openDevices takes an object with virtual, driver, not null"],
    [2, { virtual: "yes" }, 'virtual is "yes", but must be true, false or left out'],
    [2, { virtual: null }, "virtual is null, but must be true, false or left out"],
    [2, { driver: "nonsense" }, 'driver is "nonsense", but must be one of gpu, system, bundled'],
    [2, { driver: "" }, 'driver is "", but must be one of gpu, system, bundled'],
    [2, { driver: 7 }, "driver is 7, but must be one of gpu, system, bundled"],
  ];
  for (const [count, options, message] of cases) {
    await assert.rejects(open(count, options), { name: "UserError", message }, message);
  }
  const before = process.env.TWOBP_DRIVER;
  process.env.TWOBP_DRIVER = "vulkan";
  try {
    await assert.rejects(openDevices(1), {
      name: "UserError",
      message: 'TWOBP_DRIVER is "vulkan", but must be one of gpu, system, bundled',
    });
  } finally {
    if (before === undefined) delete process.env.TWOBP_DRIVER;
    else process.env.TWOBP_DRIVER = before;
  }
});

test("devices opened at once each get what they asked for, and nobody sees another environment or folder meanwhile", async () => {
  const look = () => JSON.stringify([process.cwd(), Object.entries(process.env).sort()]);
  const before = look();
  let done = false, looks = 0;
  const watch = (async () => {
    while (!done) {
      assert.equal(look(), before);
      looks++;
      await new Promise((later) => setTimeout(later, 0));
    }
  })();
  // A driver that is not there fails for its own reason, whatever the others do.
  const opened = await Promise.allSettled([
    openDevices(2, { driver: "bundled" }),
    openDevices(1, { driver: "gpu" }),
    openDevices(2),
    openDevices(3, { driver: "bundled", virtual: true }),
    openDevices(1, { driver: "system" }),
  ]);
  done = true;
  await watch;
  assert.ok(looks > 2);
  assert.equal(look(), before);
  const drivers = opened.map((each) => each.status === "fulfilled" ? each.value.driver : `${each.reason}`);
  const missing = {
    gpu: /^UserError: No device on the driver "gpu"/,
    system: /^UserError: No device on the driver "sys/,
  };
  for (const [index, wanted] of (["bundled", "gpu", undefined, "bundled", "system"] as const).entries()) {
    if (!wanted || drivers[index] === wanted) continue;
    assert.ok(wanted !== "bundled" || process.platform !== "linux" || process.arch !== "x64", drivers[index]);
    if (wanted !== "bundled") assert.match(drivers[index], missing[wanted]);
  }
  for (const each of opened) {
    if (each.status !== "fulfilled") continue;
    await Promise.all(each.value.devices.map((device) => device.idle()));
    each.value.close();
  }
});

test("withEnvironment() puts variables and folder back when the call throws", () => {
  const { HOME } = process.env;
  const here = process.cwd();
  const inside = () => {
    assert.deepEqual([process.env.HOME, process.env.TWOBP_NEW, process.cwd()], [undefined, "1", "/"]);
    throw new Error("inside");
  };
  assert.throws(() => withEnvironment({ HOME: undefined, TWOBP_NEW: "1" }, "/", inside), /^Error: inside$/);
  assert.deepEqual([process.env.HOME, "TWOBP_NEW" in process.env, process.cwd()], [HOME, false, here]);
  assert.throws(() => withEnvironment({ TWOBP_NEW: "1" }, "/nowhere/at/all", () => assert.fail("it must not run")), {
    code: "ENOENT",
  });
  assert.deepEqual(["TWOBP_NEW" in process.env, process.cwd()], [false, here]);
});

test(
  "opening devices writes nothing on standard error, and of what is written there only Dawn's two lines are taken out",
  async () => {
    const { code, stdout, stderr } = await start("tests/gpu/opened.ts").done;
    assert.deepEqual([code, stdout, stderr], [0, "inside 1\nafter\n", "before\nWarning: another one\n\xff\nlast"]);
  },
);
