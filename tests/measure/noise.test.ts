import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { quietCheck } from "../../lib/cli/quiet_check.ts";
import { describeMachine, machineText } from "../../lib/measure/machine.ts";
import { measureNoise, type NoiseReader, noiseText } from "../../lib/measure/noise.ts";

/** A machine whose cores are busy for these shares of the time, `own` of one with this process, and whose work takes what `times` says. */
function machine(shares: readonly number[], times: (round: number) => number, own = 0): NoiseReader {
  let now = 5000;
  return {
    busy: () => shares.map((share) => 70 + share * now),
    own: () => own * now,
    now: () => now,
    wait(ms) {
      now += 1.25 * ms; // timers are late on a busy machine
      return Promise.resolve();
    },
    repeat: (rounds) => Promise.resolve(Array.from({ length: rounds }, (_, round) => times(round))),
  };
}

/** Quartiles of 30 rounds, 2 ms and `share` of it more. */
const spread = (share: number) => (round: number) => 2 * (1 + (round % 2) * share);

test("a machine is quiet where no more than a tenth of its cores is busy and equal work takes equal time", async () => {
  const noise = await measureNoise(machine([0.05, 0.1], spread(0.04)));
  assert.deepEqual(noise, {
    quiet: true,
    cores: 2,
    busyCores: 0.15,
    productMs: { median: 2.04, quartiles: [2, 2.08] },
  });
  assert.equal(
    noiseText(noise),
    "quiet: 0.1 of 2 cores are busy with other programs, the quartiles of 30 equal products of matrices lie 3.9 % of " +
      "their median apart",
  );
});

test("busy cores alone make it not quiet, and so does a spread alone; the line says what is not", async () => {
  const busy = await measureNoise(machine([0.9, 0.75], spread(0.04)));
  assert.deepEqual([busy.quiet, busy.busyCores], [false, 1.65]);
  assert.equal(noiseText(busy), "not quiet: 1.6 of 2 cores are busy with other programs");
  const uneven = await measureNoise(machine([0, 0], spread(0.5)));
  assert.deepEqual([uneven.quiet, uneven.busyCores], [false, 0]);
  assert.equal(
    noiseText(uneven),
    "not quiet: the quartiles of 30 equal products of matrices lie 40.0 % of their median apart",
  );
  const both = noiseText(await measureNoise(machine([1, 1, 1, 1], spread(0.5))));
  assert.match(both, /^not quiet: 4\.0 of 4 cores .*, the quartiles of 30 .* 40\.0 %/);
});

test("what this process does itself is no noise, and one busy core of 16 is little", async () => {
  assert.deepEqual((await measureNoise(machine([0.5, 0.5], spread(0), 0.9))).busyCores, 0.1);
  assert.deepEqual((await measureNoise(machine([0.25, 0.25], spread(0), 0.51))).busyCores, 0, "ticks are coarse");
  const one = await measureNoise(machine([1, ...new Array<number>(15).fill(0)], spread(0)));
  assert.deepEqual([one.quiet, one.busyCores], [true, 1]);
});

test("where the runtime does not say how busy cores are, the work alone decides", async () => {
  const unknown = (times: (round: number) => number): NoiseReader => ({ ...machine([], times), busy: () => [0, 0] });
  const noise = await measureNoise(unknown(spread(0)));
  assert.deepEqual(noise, { quiet: true, cores: 2, productMs: { median: 2, quartiles: [2, 2] } });
  assert.match(noiseText(noise), /^quiet: how busy the cores are is not known here, the quartiles/);
  assert.equal((await measureNoise(unknown(spread(1)))).quiet, false);
});

test("the line of the machine says how quiet it was, where that was looked at", async () => {
  const noise = await measureNoise(machine([1, 1], spread(0)));
  const plain = describeMachine();
  assert.equal(machineText({ ...plain, noise }), `${machineText(plain)}; ${noiseText(noise)}`);
});

test("--quiet-check is refused in a job, whose processes keep cores busy, and does nothing where it is not given", async () => {
  const never = () => assert.fail("it said something");
  assert.deepEqual(await quietCheck({}, never), {});
  const before = { ...process.env };
  Object.assign(process.env, { OMPI_COMM_WORLD_SIZE: "2", OMPI_COMM_WORLD_RANK: "0" });
  try {
    await assert.rejects(quietCheck({ quietCheck: true }, never), {
      name: "UserError",
      message: "--quiet-check would take the processes of the job for other programs: leave it out",
    });
  } finally {
    for (const name of ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
});
