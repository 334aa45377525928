/** Entry point of `deno task doctor`: the examination runs in a process of its own, which a driver may crash. */
import process from "node:process";
import { UserError } from "../errors.ts";
import { watchEndings } from "./endings.ts";
import { runGuarded } from "./guarded.ts";

watchEndings();
runGuarded(new URL("doctor_inside.ts", import.meta.url), process.argv.slice(2)).then(({ code, crashedDuring }) => {
  if (crashedDuring === undefined) process.exit(code);
  const { message } = new UserError(
    `The process that examined this machine has crashed while it looked at ${crashedDuring}: a driver does that. ` +
      "Take another one: TWOBP_DRIVER=gpu, system or bundled; or update it",
  );
  process.stderr.write(`doctor: ${message}\n`);
  process.exit(1);
});
