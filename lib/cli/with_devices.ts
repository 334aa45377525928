import { type DeviceSet, openDevices } from "../gpu/devices.ts";

/** Opens the devices of a command, says why they are virtual if nobody asked for that, and closes them whatever happens. */
export async function withDevices<T>(
  count: number,
  { virtual, say }: { virtual?: boolean; say: (line: string) => void },
  run: (set: DeviceSet) => Promise<T>,
): Promise<T> {
  const set = await openDevices(count, { virtual });
  try {
    if (set.notice) say(`${set.notice}.`);
    return await run(set);
  } finally {
    set.close();
  }
}
