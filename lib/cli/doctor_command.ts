/** `deno task doctor`: whether training works on this machine, what is missing or slow, and what to do about it. */
import process from "node:process";
import { Command, Option } from "commander";
import { diagnose } from "../measure/doctor/diagnose.ts";
import { UserError } from "../errors.ts";
import { diagnosisText } from "../report/diagnosis.ts";
import { progress } from "../report/progress.ts";
import { type Driver, driverNames } from "../gpu/driver.ts";
import * as flag from "./flags.ts";
import { oneOf } from "./options.ts";
import { openOutputs } from "./outputs.ts";

interface DoctorFlags {
  quick?: boolean;
  all?: boolean;
  json?: string;
  crashed: Driver[];
}

const one = oneOf(driverNames);
const another = (text: string, before: Driver[]): Driver[] => [...before, one(text)];

/** The command line. `tell` is told what is about to be looked at, and an empty text at the end. */
export function doctorCommand(tell: (doing: string) => Promise<void>): Command {
  const command = new Command("doctor")
    .description(
      "Say whether a training step of a pipeline runs on this machine: runtimes, drivers, devices, numbers, kernels, rates, and " +
        "what to do about what is missing or slow. Ends with code 0 if it does, and 1 if not.",
    )
    .option("--quick", "leave kernels and rates out: a few seconds")
    .option("--all", "every kernel, those too that take long to compile and that no run takes unasked")
    .addOption(flag.json("all that was found"))
    .addOption(new Option("--crashed <driver>", "not to be tried again").argParser(another).default([]).hideHelp());
  return command.action(async () => await run(command.opts<DoctorFlags>(), tell));
}

async function run({ quick, all, json, crashed }: DoctorFlags, tell: (doing: string) => Promise<void>): Promise<void> {
  if (quick && all) throw new UserError("--quick and --all contradict each other: give one of the two");
  const out = openOutputs({ json });
  const bar = progress(100, "%");
  const report = await diagnose({
    depth: quick ? "quick" : all ? "all" : "usual",
    crashed,
    async onProgress(done, doing) {
      bar.to(Math.round(100 * done), doing);
      await tell(doing);
    },
  }).finally(bar.done);
  out.say(diagnosisText(report, Math.min(120, process.stdout.columns || 80)));
  await out.results("doctor", { title: "Doctor", report, sections: () => [] });
  await tell("");
  if (!report.works) process.exit(1);
}
