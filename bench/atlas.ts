/**
 * `deno task bench atlas`: which schedule is fastest where, simulated: every schedule of the zoo with its best policy of 2BP, by number of
 * devices and micro-batches, cost of W, F and messages, and the memory that there is. Needs no GPU.
 */
import { Command } from "commander";
import { atlasGrid, type AtlasRow, atlasRow, formatAtlas } from "twobp/planning";
import { atlasSections, atlasTable, atlasWinsTable, progress, tableText } from "twobp/report";
import * as flag from "../lib/cli/flags.ts";
import { openOutputs, type OutputPaths } from "../lib/cli/outputs.ts";

/** The command, to be added to `deno task bench`. */
export const atlas: Command = new Command("atlas")
  .description(
    "Which schedule is fastest, by devices, micro-batches, cost of W, F and messages, and memory: every schedule of the zoo with " +
      "its best policy of 2BP, simulated. Takes some twenty minutes.",
  )
  .option("--quick", "up to 4 devices and 16 micro-batches: a minute")
  .addOption(flag.json("the atlas"))
  .addOption(flag.html())
  .addOption(flag.out())
  .action(async ({ quick = false, ...paths }: OutputPaths & { quick?: boolean }) => {
    const out = openOutputs(paths);
    const points = atlasGrid().filter(({ devices, microbatches }) => !quick || devices <= 4 && microbatches <= 16);
    const bar = progress(points.length, "points");
    const rows: AtlasRow[] = [];
    for (const point of points) {
      rows.push(atlasRow(point));
      bar.step(`${point.devices} devices, ${point.microbatches} micro-batches`);
      await new Promise((resolve) => setTimeout(resolve)); // the bar is drawn between points
    }
    bar.done();
    const usual = rows.filter(({ weight, forward, message }) => weight === 1 && forward === 1 && message === 0.05);
    for (const table of [atlasTable(usual), atlasWinsTable(rows)]) out.say(tableText(table));
    await out.results("bench", {
      title: "Atlas: which schedule is fastest where (simulated)",
      report: formatAtlas(rows),
      sections: () => atlasSections(rows),
    });
  });
