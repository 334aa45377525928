/** Opens devices, then writes past and through the filter of standard error. */
import { Buffer } from "node:buffer";
import { writeSync } from "node:fs";
import process from "node:process";
import { openDevices } from "../../lib/gpu/devices.ts";
import { withoutLimitWarnings } from "../../lib/gpu/limit_warnings.ts";

const set = await openDevices(2);
set.close();
writeSync(2, "before\n");
const value = withoutLimitWarnings(() => {
  writeSync(1, "inside ");
  writeSync(2, "Warning: another one\n");
  for (const kind of ["Uniform", "Storage"]) {
    const name = `maxDynamic${kind}BuffersPerPipelineLayout`;
    writeSync(2, `Warning: ${name} artificially reduced from 1000000 to 16 to fit dynamic offset allocation limit.\n`);
  }
  writeSync(2, Buffer.from("\u00ff\nlast"));
  return 1;
});
writeSync(1, `${value}\nafter\n`);
process.exit(0);
