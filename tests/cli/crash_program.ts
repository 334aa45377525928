/** Begins something, and is ended by what a crash ends a process with. Arguments: what it is about to do, and its exit code if it has one. */
import process from "node:process";
import { tellGuard } from "../../lib/cli/guarded.ts";

const [doing, code] = process.argv.slice(2);
tellGuard(doing).then(() => code === undefined ? process.kill(process.pid, "SIGSEGV") : process.exit(Number(code)));
