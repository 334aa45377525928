/** The peers' packages, which live in this folder and not among the project's own. */
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { UserError } from "twobp";

const require = createRequire(import.meta.url);

/** Loads a package as whoever imports it would, without types. */
export async function load<T>(name: string): Promise<T> {
  const { type, module, main } = manifestOf(name);
  return type === "module" ? await import(pathToFileURL(join(folderOf(name), module ?? main)).href) : require(name); // TensorFlow.js's modules import each other by paths that only bundlers resolve
}

/** The version that is installed. */
export function versionOf(name: string): string {
  return manifestOf(name).version;
}

function manifestOf(
  name: string,
): { version: string; type?: string; module?: string; main: string } {
  return JSON.parse(readFileSync(join(folderOf(name), "package.json"), "utf8"));
}

/** @throws {UserError} When the peers are not installed. */
function folderOf(name: string): string {
  for (const folder of require.resolve.paths(name) ?? []) {
    try {
      return dirname(
        join(folder, name, readable(join(folder, name, "package.json"))),
      );
    } catch {
      // not in this one
    }
  }
  throw new UserError(
    `The peers are not installed (${name} is missing): run "deno task peers:install" once`,
  );
}

function readable(path: string): string {
  readFileSync(path);
  return "package.json";
}
