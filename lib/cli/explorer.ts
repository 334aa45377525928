/** Entry point of `deno task explorer`. */
import { explorerCommand } from "./explorer_command.ts";
import { main } from "./options.ts";

await main(explorerCommand());
