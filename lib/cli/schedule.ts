/** Entry point of `deno task schedule`. */
import { main } from "./options.ts";
import { scheduleCommand } from "./schedule_commands.ts";

main(scheduleCommand());
