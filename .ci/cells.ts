/** Whether the notebooks' cells are programs that Deno checks and runs too: tslab, which shows them, is of another make. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Notebook } from "../lib/cli/notebooks.ts";

const folder = fileURLToPath(new URL("../notebooks", import.meta.url));
const scratch = mkdtempSync(join(folder, ".cells-"));
try {
  const scripts = readdirSync(folder).filter((name) => name.endsWith(".ipynb")).map((name) => {
    const { cells }: Notebook = JSON.parse(readFileSync(join(folder, name), "utf8"));
    const code = cells.filter(({ cell_type }) => cell_type === "code");
    const path = join(scratch, name.replace(/ipynb$/, "ts"));
    writeFileSync(path, code.map(({ source }) => typeof source === "string" ? source : source.join("")).join("\n"));
    return path;
  });
  const run = (...args: string[]) => {
    const { status, stdout } = spawnSync(process.execPath, args, {
      cwd: folder, // as a kernel runs them
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
    });
    if (status !== 0) throw new Error(`deno ${args.slice(0, 2).join(" ")} failed`);
    return stdout;
  };
  run("check", "--quiet", ...scripts);
  // The one that needs no driver.
  const shown = run("run", "-A", "--no-check", join(scratch, "schedules.ts"));
  if (!shown.includes("Deadlock: rank 0 waits")) throw new Error("schedules.ipynb ended early in Deno");
  console.log(`The cells of ${scripts.length} notebooks pass Deno's checks.`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
