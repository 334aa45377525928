/** Finds the bundled driver, as a device would, and prints where and what it is. `device` opens one on it, too. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { bundledDriver } from "../../lib/gpu/bundled.ts";
import { openDevices } from "../../lib/gpu/devices.ts";

try {
  const { folder } = (await bundledDriver(0))!;
  const hash = createHash("sha1");
  for (const name of readdirSync(folder).sort()) hash.update(name).update(readFileSync(join(folder, name)));
  let adapter: string | undefined;
  if (process.argv.includes("device")) {
    const set = await openDevices(2, { driver: "bundled", virtual: false });
    await Promise.all(set.devices.map((device) => device.idle()));
    // Two copies of the library, one thread each: a shared copy would show as one.
    const maps = existsSync("/proc/self/maps") ? readFileSync("/proc/self/maps", "utf8") : "";
    adapter = `${set.adapter}, ${new Set(maps.match(/libvk_swiftshader\w*\.so/g)).size} copies`;
    set.close();
  }
  console.log(JSON.stringify({ folder, hash: hash.digest("hex"), adapter }));
} catch (error) {
  console.log(JSON.stringify({ error: `${(error as Error).name}: ${(error as Error).message}` }));
}
process.exit(0);
