/** Entry point of `deno task doctor`: the examination runs in a process of its own, which a driver may crash. */
import process from "node:process";
import { UserError } from "../errors.ts";
import { watchEndings } from "./endings.ts";
import { type GuardedEnd, runGuarded } from "./guarded.ts";

/** Examines, and goes on without a driver that has crashed the examination when it was tried. */
async function examine(): Promise<GuardedEnd> {
  const crashed: string[] = [];
  for (;;) {
    const more = crashed.flatMap((driver) => ["--crashed", driver]);
    const end = await runGuarded(new URL("doctor_inside.ts", import.meta.url), [...process.argv.slice(2), ...more]);
    const [, driver] = /^the driver "(\w+)"$/.exec(end.crashedDuring ?? "") ?? [];
    if (driver === undefined || crashed.includes(driver)) return end;
    crashed.push(driver);
    process.stderr.write(
      `doctor: the driver "${driver}" has crashed the examination, which begins again without it.\n`,
    );
  }
}

watchEndings();
examine().then(({ code, crashedDuring }) => {
  if (crashedDuring === undefined) process.exit(code);
  const during = crashedDuring === "" ? "" : ` while it looked at ${crashedDuring}`;
  const { message } = new UserError(
    `The process that examined this machine has crashed${during}, as a driver with a fault makes it. Update the driver, or ` +
      "take another one: TWOBP_DRIVER=gpu, system or bundled says which, VK_DRIVER_FILES where the loader finds them",
  );
  process.stderr.write(`doctor: ${message}\n`);
  process.exit(1);
});
