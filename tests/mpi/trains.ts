/** The first process of a job whose others are workers, for `worker.test.ts`: trains and saves in a folder, and prints a line of JSON. */
import process from "node:process";
import { openWorld } from "../../lib/runtime/open_world.ts";
import { trainings } from "./trainings.ts";

const set = await openWorld({ workers: true });
process.stdout.write(`${JSON.stringify(await trainings(set, process.argv[2]))}\n`);
set.close();
