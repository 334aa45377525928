/**
 * Environment variables and the working directory as the native libraries in this process see them. Vulkan's loader and the
 * drivers read them inside the calls that make an instance or a device, so they are changed for the length of such a call
 * and no longer: nothing else in the process ever sees them changed, however many devices are being opened at once.
 */
import process from "node:process";
import { cText, libc } from "./libc.ts";

/**
 * Sets environment variables, or removes those given as `undefined`, and goes to `folder` while `call` runs; afterwards, or
 * when it throws, all is as before. `call` must not be asynchronous; what it returns may be a promise.
 */
export function withEnvironment<T>(
  variables: Readonly<Record<string, string | undefined>>,
  folder: string | undefined,
  call: () => T,
): T {
  const before = Object.keys(variables).map((name) => [name, process.env[name]] as const);
  const here = folder === undefined ? undefined : process.cwd();
  try {
    if (folder !== undefined) process.chdir(folder);
    for (const [name, value] of Object.entries(variables)) setVariable(name, value);
    return call();
  } finally {
    for (const [name, value] of before) setVariable(name, value);
    if (here !== undefined) process.chdir(here);
  }
}

/** Sets an environment variable for good, or removes it, for JavaScript and for native libraries. */
export function setVariable(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
  // Bun keeps `process.env` to itself. Where there is no such function the driver keeps what the shell gave it.
  if (!process.versions.bun) return;
  const { setenv, unsetenv } = libc();
  if (value === undefined) unsetenv?.(cText(name));
  else setenv?.(cText(name), cText(value), 1);
}
