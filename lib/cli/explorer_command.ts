/** `deno task explorer`: writes the page on which schedules are looked at and changed. */
import { Command } from "commander";
import { checkOutputs, writeOutput } from "../output.ts";
import { explorerPage } from "./explorer_page.ts";

/** The command line. */
export function explorerCommand(): Command {
  return new Command("explorer")
    .description(
      "Write a page that draws pipeline schedules without and with 2BP, says why an action waits, and lets one move it: " +
        "one HTML file, which any browser opens, without a server and without a network.",
    )
    .option("--out <file>", "where to write it; - for standard output", "explorer.html")
    .action(async ({ out }: { out: string }) => {
      checkOutputs({ "--out": out });
      const page = await explorerPage();
      writeOutput(out, page);
      if (out !== "-") {
        writeOutput(
          "-",
          `${out}: ${Math.round(new TextEncoder().encode(page).length / 1000)} kB; open it in a browser\n`,
        );
      }
    });
}
