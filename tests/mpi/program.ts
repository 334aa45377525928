/** A process of an MPI job, for `mpi.test.ts`, with a folder for checkpoints: the first prints a line of JSON. */
import { join } from "node:path";
import process from "node:process";
import { readClocks } from "../../lib/runtime/read_clocks.ts";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { tracedStep, trainAndSave, workload, written } from "./workload.ts";

const set = await openWorld();
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
