/** What this machine's processor has, as far as kernels for drivers that compute on it ask. */
import { readFileSync } from "node:fs";

let found: boolean | undefined;

/**
 * Whether the processor has AVX2, by what Linux lists of it in `file`; true where that says nothing (another system, or no x86
 * processor). With a `file` of its own it is read anew.
 */
export function hasAvx2(file?: string): boolean {
  if (file !== undefined) return readAvx2(file);
  return found ??= readAvx2("/proc/cpuinfo");
}

function readAvx2(file: string): boolean {
  try {
    const flags = readFileSync(file, "utf8").match(/^flags\s*:(.*)$/m)?.[1];
    return flags === undefined || flags.trim().split(/\s+/).includes("avx2");
  } catch {
    return true;
  }
}
