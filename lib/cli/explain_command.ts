/** `deno task schedule explain`: where a traced step goes, why, and what else would be faster with its costs. */
import process from "node:process";
import { Command } from "commander";
import { UserError } from "../errors.ts";
import { explainProfile } from "../measure/explain/explain.ts";
import { fromTrace } from "../measure/profile/from_trace.ts";
import {
  accountTable,
  comparisonTable,
  criticalTable,
  explanationJson,
  explanationSections,
  explanationText,
  explanationTitle,
  explanationTrace,
  gainsTable,
  verdictText,
  waitsTable,
} from "../report/explanation.ts";
import { tableText } from "../report/table.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { escaped } from "../text.ts";
import * as flag from "./flags.ts";
import { integer, real } from "./options.ts";
import { openOutputs } from "./outputs.ts";
import { warnOfOwnCells } from "./own_cells.ts";

interface Flags {
  also?: string[];
  warmup?: number;
  cap?: number;
  budget: number;
  layers?: number[];
  json?: string;
  csv?: string;
  trace?: string;
  html?: string;
  out?: string;
}

/** Above so many actions a browser no longer draws a page, or opens a trace of two steps, in good time. */
const mostDrawn = { html: 20_000, out: 20_000, trace: 200_000 };

/** The command line. */
export function explainCommand(): Command {
  return new Command("explain")
    .description(
      "Take a traced step apart: by rank computation, waits and their causes, messages, host and the critical path, traced above " +
        "simulated; and what 2BP, another schedule, order or partition would gain with the traced costs.",
    )
    .argument("<trace...>", "traces of one run, as schedule import takes them")
    .option(
      "--also <trace...>",
      "traces of another run of the same stages, after those of the first, for times that it lacks: a plain step shows B, " +
        "one with 2BP I and W",
    )
    .addOption(flag.warmup())
    .option(
      "--cap <n>",
      "leave out schedules with which a rank holds more activations, of a micro-batch on a stage",
      real(0, Number.MAX_VALUE),
    )
    .option("--budget <count>", "candidates of the search for an order; 0 for no search", integer(0, 1e9), 20_000)
    .option("--layers <a,b>", "layers of each stage, to try other partitions of whole layers", layersOf)
    .addOption(flag.json("accounts, critical paths and alternatives"))
    .option("--csv <file>", "write the fastest schedule as PyTorch's CSV; - for standard output")
    .option("--trace <file>", "write the traced and the simulated step as a trace for ui.perfetto.dev")
    .addOption(flag.html("both steps, where they go, and what else would gain"))
    .addOption(flag.out())
    .action(run);
}

function layersOf(text: string): number[] {
  return text.split(",").map((each) => integer(1, 100_000)(each.trim()));
}

async function run(traces: string[], { also, warmup, cap, budget, layers, ...paths }: Flags): Promise<void> {
  const out = openOutputs(paths);
  const profile = await fromTrace(traces, { warmup });
  const others = also ? [await fromTrace(also, { warmup })] : [];
  const count = profile.schedule?.actions.reduce((sum, list) => sum + list.length, 0) ?? 0;
  for (const name of ["html", "out", "trace"] as const) {
    if (paths[name] && count > mostDrawn[name]) {
      throw new UserError(`--${name} draws at most ${mostDrawn[name]} actions, and this step has ${count}`);
    }
  }
  const explanation = await explainProfile(profile, { also: others, cap, budget, layers });
  const title = explanationTitle(explanation);
  const colour = Boolean(process.stdout.isTTY) && !process.env.NO_COLOR;
  const width = process.stdout.columns || 120;
  out.say(title);
  out.say(explanationText(explanation, { width, colour }).replace(/\n$/, ""));
  for (const table of [accountTable, waitsTable, criticalTable, comparisonTable, gainsTable]) {
    out.say(tableText(table(explanation)));
  }
  for (const note of explanation.notes) out.say(escaped(note));
  out.say(verdictText(explanation));
  if (paths.csv || paths.out) warnOfOwnCells(explanation.best);
  await out.results("schedule", {
    title,
    report: explanationJson(explanation),
    sections: () => explanationSections(explanation),
    csv: () => toCsv(explanation.best),
    trace: () => explanationTrace(explanation),
  });
}
