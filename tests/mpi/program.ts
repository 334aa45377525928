/** A process of an MPI job, for `mpi.test.ts`: the first prints a line of JSON. */
import process from "node:process";
import { readClocks } from "../../lib/runtime/read_clocks.ts";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { tracedStep, workload } from "./workload.ts";

const set = await openWorld();
const results = await workload(set);
const traced = await tracedStep(set, () => readClocks(set));
const { adapter, library, world: { transport, size, peers } } = set;
if (set.process === 0) {
  process.stdout.write(`${JSON.stringify({ results, traced, adapter, library, transport, size, peers })}\n`);
}
set.close();
