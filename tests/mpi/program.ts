/** A process of an MPI job, for `mpi.test.ts`, with a folder for checkpoints: the first prints a line of JSON. */
import assert from "node:assert/strict";
import { join } from "node:path";
import process from "node:process";
import { readClocks } from "../../lib/runtime/read_clocks.ts";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { tracedStep, trainAndSave, workload, written } from "./workload.ts";

const set = await openWorld();
expectSignalsLeft();
const results = await workload(set);
const traced = await tracedStep(set, () => readClocks(set));
const folder = process.argv[2], checkpoints: unknown[] = [];
for (const [name, shape] of written) checkpoints.push(await trainAndSave(set, shape, join(folder, name)));
const { adapter, library, world: { transport, size, peers } } = set;
if (set.process === 0) {
  process.stdout.write(
    `${JSON.stringify({ results, traced, checkpoints, adapter, library, transport, size, peers })}\n`,
  );
}
set.close();

/** WebAssembly that reads outside its memory throws, as ever: the library that was loaded has not taken the signal of it. */
function expectSignalsLeft(): void {
  // (module (memory 1) (func (export "r") (param i32) (result i32) (i32.load (local.get 0))))
  const magic = [0, 97, 115, 109, 1, 0, 0, 0], type = [1, 6, 1, 96, 1, 127, 1, 127], functions = [3, 2, 1, 0];
  const memory = [5, 3, 1, 0, 1], exported = [7, 5, 1, 1, 114, 0, 0], code = [10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11];
  const bytes = Uint8Array.from([magic, type, functions, memory, exported, code].flat());
  const read = new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.r as (at: number) => number;
  assert.throws(() => read(1 << 20), WebAssembly.RuntimeError);
}
