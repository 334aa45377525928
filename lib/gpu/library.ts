/** Loads a shared library into this process, for good, in each of the runtimes. */
import { createRequire } from "node:module";
import { constants } from "node:os";

/** dlopen() flag of glibc: stay loaded after a close. Not among Node's constants. */
const RTLD_NODELETE = 0x1000;

/** Whether the library (a path, or a name the system's loader finds) is loaded now. */
export function loadLibrary(name: string): boolean {
  const deno = (globalThis as { Deno?: { dlopen(path: string, symbols: object): unknown } }).Deno;
  try {
    if (deno) loaded.push(deno.dlopen(name, {}));
    else if (process.versions.bun) {
      const { dlopen } = createRequire(import.meta.url)("bun:ffi");
      loaded.push(dlopen(name, { vkCreateInstance: { args: [], returns: "i32" } })); // Bun wants at least one symbol
    } else process.dlopen({ exports: {} }, name, constants.dlopen.RTLD_NOW | RTLD_NODELETE);
    return true;
  } catch (error) {
    // Node loads the library, then complains that it is no add-on; by then it is there to stay.
    return /self-register/.test((error as Error).message);
  }
}

/** Handles, kept from being collected: collecting one closes the library. */
const loaded: unknown[] = [];
