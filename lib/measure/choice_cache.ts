/**
 * Measured choices on disk, a file for each kind of device and state of the kernels, in the user's cache folder. Read and
 * written by `calibrate()` alone.
 */
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { writeFileWhole } from "../files.ts";
import { cacheFolder } from "../gpu/cache_folder.ts";
import type { GpuInfo } from "../gpu/gpu.ts";
import type { Choices } from "../ops/choice.ts";

/** The folder of the files, or undefined where there is none that only this user can write. */
export function choiceFolder(): string | undefined {
  const cache = cacheFolder();
  return cache && join(cache, "choices");
}

/** What choices are good for: this hardware with this driver, and these kernels. */
export function choiceKey(info: GpuInfo): string {
  const processor = info.software ? ` on ${cpus()[0]?.model.trim() ?? "an unknown processor"}` : "";
  return `${info.identity}${processor}, subgroups of ${info.subgroupSize}, kernels ${kernelHash()}`;
}

/** What was measured for `key`; nothing where there is no file, or one that is damaged or belongs to something else. */
export function readChoices(folder: string, key: string): Choices {
  try {
    const { schema, key: written, choices } = JSON.parse(readFileSync(fileOf(folder, key), "utf8"));
    if (schema === 1 && written === key && isChoices(choices)) return choices;
  } catch {
    // Not there, or not ours: it is written anew after measuring.
  }
  return {};
}

/** Puts choices away, as a whole or not at all; a folder that cannot be written only means measuring again. */
export function writeChoices(folder: string, key: string, choices: Choices): void {
  const text = JSON.stringify({ schema: 1, key, choices }, null, 1) + "\n";
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileWhole(fileOf(folder, key), (file) => writeFileSync(file, text));
  } catch {
    // See above.
  }
}

function fileOf(folder: string, key: string): string {
  return join(folder, `${createHash("sha256").update(key).digest("hex").slice(0, 32)}.json`);
}

function isChoices(value: unknown): value is Choices {
  const isRecord = (each: unknown): each is Record<string, unknown> =>
    typeof each === "object" && each !== null && !Array.isArray(each);
  return isRecord(value) &&
    Object.values(value).every((classes) =>
      isRecord(classes) && Object.values(classes).every((name) => typeof name === "string")
    );
}

let hashed: string | undefined;

/** Changes whenever any kernel does. */
function kernelHash(): string {
  if (!hashed) {
    const folder = new URL("../../kernels/", import.meta.url);
    const hash = createHash("sha256");
    const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".wgsl"));
    for (const file of files.sort()) hash.update(file).update(readFileSync(new URL(file, folder)));
    hashed = hash.digest("hex").slice(0, 16);
  }
  return hashed;
}
