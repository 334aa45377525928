/** Entry point of `deno task doctor`: the examination runs in a process of its own, which a driver may crash. */
import process from "node:process";
import { UserError } from "../errors.ts";
import { watchEndings } from "./endings.ts";
import { runGuarded } from "./guarded.ts";

watchEndings();
runGuarded(new URL("doctor_inside.ts", import.meta.url), process.argv.slice(2)).then(({ code, crashedDuring }) => {
  if (crashedDuring === undefined) process.exit(code);
  const during = crashedDuring === "" ? "" : ` while it looked at ${crashedDuring}`;
  const { message } = new UserError(
    `The process that examined this machine has crashed${during}, as a driver with a fault makes it. Update the driver, or ` +
      "take another one: TWOBP_DRIVER=gpu, system or bundled says which, VK_DRIVER_FILES where the loader finds them",
  );
  process.stderr.write(`doctor: ${message}\n`);
  process.exit(1);
});
