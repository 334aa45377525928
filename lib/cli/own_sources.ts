/** A text that every checkout has: the sources of this project. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The files of this project's sources, always in the same order. */
export function ownSources(): string[] {
  const root = fileURLToPath(new URL("../..", import.meta.url));
  const sources = ["lib", "kernels", "bench"].flatMap((folder) =>
    (readdirSync(join(root, folder), { recursive: true }) as string[]).sort()
      .filter((name) => /\.(ts|wgsl)$/.test(name)).map((name) => join(root, folder, name))
  );
  return [join(root, "README.md"), join(root, "mod.ts"), ...sources].filter((file) => existsSync(file));
}
