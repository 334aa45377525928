/** `deno task worker`: a process whose devices are the first process's to use. */
import process from "node:process";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { work } from "../runtime/worker.ts";
import { isInJob } from "../runtime/transports/mpi/launcher.ts";
import { integer } from "./options.ts";

/** The command line. */
export function workerCommand(): Command {
  return new Command("worker")
    .description(
      "Open this process's devices and do what the first process of the MPI job asks: a notebook or a program that calls " +
        "openWorld({ workers: true }), as in: mpirun -n 1 deno run -A my.ts : -n 3 deno task worker",
    )
    .option("--devices <n>", "how many ranks this process runs", integer(1, 1024), 1)
    .action(async ({ devices }: { devices: number }) => {
      if (!isInJob()) {
        throw new UserError(
          "no launcher has started this process beside a first one: mpirun -n 1 deno run -A my.ts : -n 3 deno task worker",
        );
      }
      await work({ devices }, (line) => void process.stderr.write(`${line}\n`));
    });
}
