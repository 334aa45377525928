/**
 * `--quiet-check`: how quiet the machine is, looked at before a command measures on it.
 *
 * @module
 */
import { UserError } from "../errors.ts";
import { measureNoise, noiseText } from "../measure/noise.ts";
import { noiseReader } from "../measure/noise_reader.ts";
import { isInJob } from "../runtime/transports/mpi/launcher.ts";
import type { Results } from "./outputs.ts";
import { withDevices } from "./with_devices.ts";

/**
 * Where the flag asks for it looks for one to two seconds, on a device of its own, and says in a line what it found: for
 * `results()`. The command goes on whatever that is.
 *
 * @throws {UserError} In a job of several processes, which keep cores busy themselves.
 */
export async function quietCheck(
  { quietCheck }: { readonly quietCheck?: boolean },
  say: (line: string) => void,
): Promise<Pick<Results, "noise">> {
  if (!quietCheck) return {};
  if (isInJob()) {
    throw new UserError("--quiet-check would take the processes of the job for other programs: leave it out");
  }
  const noise = await withDevices(1, { say }, ({ devices: [device] }) => measureNoise(noiseReader(device)));
  say(`The machine is ${noiseText(noise)}.`);
  return { noise };
}
