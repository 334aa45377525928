/** Prints what the stages of a trace take: run with little memory by `profile_stream.test.ts`. */
import process from "node:process";
import { clusterOf } from "../../lib/measure/profile/cluster.ts";
import { fromTrace } from "../../lib/measure/profile/from_trace.ts";

console.log(JSON.stringify(clusterOf(await fromTrace(process.argv.slice(2))).stages));
