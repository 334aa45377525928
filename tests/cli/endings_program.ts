/** A command that has begun everything that an end before its time must put in order, and waits. */
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { Command } from "commander";
import { endWithThis, onNextInterrupt } from "../../lib/cli/endings.ts";
import { main } from "../../lib/cli/options.ts";
import { makeFolderWhole } from "../../lib/files.ts";
import { progress } from "../../lib/report/progress.ts";

/** As if standard error were a terminal of 80 columns. */
Object.defineProperties(process.stderr, {
  isTTY: { value: true },
  columns: { value: 80 },
});

await main(
  new Command("endings").argument("<folder>").argument("[how]").action(async (folder: string, how?: string) => {
    const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
    endWithThis(child);
    const bar = progress(10);
    bar.to(5, "a note as long as a line of a terminal is wide, and then some more");
    if (how === "kept") onNextInterrupt(() => console.log("kept"));
    void makeFolderWhole(join(folder, "made"), async (temporary) => {
      writeFileSync(join(temporary, "half"), "half");
      await new Promise((later) => setTimeout(later, 60_000));
    }, () => Promise.resolve(false));
    console.log(`child ${child.pid}`);
    if (how === "throw") throw new Error("on the way");
    for (;;) {
      await new Promise((later) => setTimeout(later, 5));
      if (how === "print") process.stdout.write("more\n");
    }
  }),
);
