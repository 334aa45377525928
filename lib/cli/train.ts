/** Entry point of `deno task train`. */
import { main } from "./options.ts";
import { trainCommand } from "./train_command.ts";

main(trainCommand());
