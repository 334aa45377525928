/** Entry point of `deno task worker`. */
import { main } from "./options.ts";
import { workerCommand } from "./worker_command.ts";

main(workerCommand());
