/** Entry point of `deno task sample`. */
import { main } from "./options.ts";
import { sampleCommand } from "./sample_command.ts";

main(sampleCommand());
