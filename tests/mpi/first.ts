/** The first process of a job whose others are workers, for `worker.test.ts`: prints a line of JSON. */
import assert from "node:assert/strict";
import process from "node:process";
import { clocksBetween } from "../../lib/runtime/clocks.ts";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { createPipeline } from "../../lib/runtime/pipeline.ts";
import { readClocks } from "../../lib/runtime/read_clocks.ts";
import { frozenModel } from "../../lib/models/frozen_model.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { textSource } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { calls, tiny } from "./calls.ts";

const set = await openWorld({ workers: true });
const results = await calls(set);
const optimizer = adamw();
const frozen = frozenModel(tiny(), (name) => name.startsWith("embedding"));
assert.throws(() => createPipeline(set, frozen, { optimizer }), { name: "UserError", message: /as they are, which/ });
assert.throws(() => createPipeline(set, tiny(), { optimizer: { ...optimizer } }), { name: "UserError" });
assert.throws(() => createPipeline(set, tiny(), { optimizer, recompute: () => "both" }), {
  name: "UserError",
  message: /a function: give `recompute` as text/,
});
const clocks = clocksBetween(await readClocks(set), await readClocks(set));
assert.equal(clocks.peers.length, 2);
assert.equal(clocks.error, 0, "software devices of one machine read one clock");
assert.deepEqual(await calls(set), results, "workers go on behind it");
await assert.rejects(openWorld({ workers: true }), { name: "UserError", message: /has its workers already/ });
const pipeline = createPipeline(set, tiny(), { optimizer }), schedule = generate("1f1b-1", { devices: 2 });
const source = textSource(new TextEncoder().encode("to be or not to be, ".repeat(9)), { length: 8, seed: 1 });
const [, during] = await Promise.all([pipeline.step(schedule, source.next(4)), readClocks(set)]);
assert.equal(during.peers.length, 2, "clocks are read while a step runs");
process.stdout.write(`${JSON.stringify({ results, library: set.library })}\n`);
if (process.argv.includes("--unclosed")) process.exit(0);
set.close();
await assert.rejects(openWorld({ workers: true }), { name: "UserError", message: /so start the job again$/ });
await assert.rejects(pipeline.step(schedule, source.next(4)), {
  name: "UserError",
  message: /^The devices are closed/,
});
