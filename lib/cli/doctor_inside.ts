/** What `doctor.ts` runs in a process of its own. */
import { doctorCommand } from "./doctor_command.ts";
import { tellGuard } from "./guarded.ts";
import { main } from "./options.ts";

main(doctorCommand(tellGuard));
