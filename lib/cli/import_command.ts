/** `deno task schedule import`: what traces of a run say, as tables and as a cluster file for the other commands. */
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { fromTrace } from "../measure/profile/from_trace.ts";
import {
  messageTable,
  profileJson,
  profileSections,
  profileTable,
  profileTitle,
  rankTable,
} from "../report/profile.ts";
import { tableText } from "../report/table.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import * as flag from "./flags.ts";
import { openOutputs } from "./outputs.ts";
import { warnOfOwnCells } from "./own_cells.ts";

interface Flags {
  warmup?: number;
  json?: string;
  csv?: string;
  html?: string;
  out?: string;
}

/** The command line. */
export function importCommand(): Command {
  return new Command("import")
    .description(
      "Read traces of a run: which schedule ran, what F, I, W and B take on each stage (waits taken out), messages, clocks. " +
        "Its --json is what --cluster of the other commands takes.",
    )
    .argument(
      "<trace...>",
      "traces of PyTorch's profiler, JSON or gzip, one for each rank; a trace of this project; " +
        "or a CSV or JSON table of times (stage,kind,ms)",
    )
    .addOption(flag.warmup())
    .addOption(flag.json("medians in milliseconds, a cluster file"))
    .addOption(flag.csv())
    .addOption(flag.html("the tables"))
    .addOption(flag.out())
    .action(run);
}

async function run(traces: string[], { warmup, ...paths }: Flags): Promise<void> {
  const out = openOutputs(paths);
  const profile = await fromTrace(traces, { warmup });
  const { schedule } = profile;
  if (paths.csv !== undefined && !schedule) {
    throw new UserError("--csv writes the schedule that ran, and a table of times does not say which; give traces");
  }
  const title = profileTitle(profile);
  out.say(title);
  out.say(tableText(profileTable(profile)));
  if (profile.messages.length > 0) out.say(tableText(messageTable(profile)));
  out.say(tableText(rankTable(profile)));
  if (schedule && (paths.csv || paths.out)) warnOfOwnCells(schedule);
  await out.results("schedule", {
    title,
    report: profileJson(profile),
    sections: () => profileSections(profile),
    csv: schedule && (() => toCsv(schedule)),
  });
}
