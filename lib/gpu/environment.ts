/**
 * Environment variables as the native libraries in this process see them. Vulkan's loader and Mesa read them with
 * getenv() each time an instance is made, so a change counts from the next device on.
 */
import { createRequire } from "node:module";

/**
 * Sets environment variables, or removes those given as `undefined`, while `work` runs, and puts the old values back.
 * Bun keeps `process.env` to itself, so there setenv() of the C library is called as well.
 */
export async function withEnvironment<T>(
  variables: Record<string, string | undefined>,
  work: () => Promise<T>,
): Promise<T> {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  for (const [name, value] of Object.entries(variables)) set(name, value);
  try {
    return await work();
  } finally {
    for (const [name, value] of before) set(name, value);
  }
}

function set(name: string, value: string | undefined) {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
  if (process.versions.bun) bunLibc()?.(name, value);
}

type SetNative = (name: string, value: string | undefined) => void;
let nativeSet: SetNative | undefined | null = null;

function bunLibc(): SetNative | undefined {
  if (nativeSet !== null) return nativeSet;
  try {
    const { dlopen } = createRequire(import.meta.url)("bun:ffi");
    const library = process.platform === "darwin" ? "libSystem.dylib" : "libc.so.6";
    const { symbols } = dlopen(library, {
      setenv: { args: ["cstring", "cstring", "i32"], returns: "i32" },
      unsetenv: { args: ["cstring"], returns: "i32" },
    });
    const text = (value: string) => new TextEncoder().encode(value + "\0");
    nativeSet = (name, value) => {
      if (value === undefined) symbols.unsetenv(text(name));
      else symbols.setenv(text(name), text(value), 1);
    };
  } catch {
    nativeSet = undefined; // no such C library: the driver keeps what the shell gave it
  }
  return nativeSet;
}
