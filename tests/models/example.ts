/** Models of `examples/`, built by the functions that stand there. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const root = new URL("../../", import.meta.url);

/** A function of an example, which is not run: what stands before it opens devices is a module of its own here. */
export async function functionOf<Made>(example: string, name: string): Promise<Made> {
  const text = readFileSync(new URL(`examples/${example}`, root), "utf8");
  const definitions = text.slice(0, text.indexOf("\nconst set = await openDevices("))
    .replace(
      /from "twobp(?:\/(\w+))?"/g,
      (_, path) => `from "${new URL(path ? `lib/${path}/mod.ts` : "mod.ts", root)}"`,
    );
  const folder = mkdtempSync(join(tmpdir(), "twobp-example-"));
  try {
    const path = join(folder, example);
    writeFileSync(path, `${definitions}\nexport { ${name} };\n`);
    return (await import(pathToFileURL(path).href))[name];
  } finally {
    rmSync(folder, { recursive: true });
  }
}
