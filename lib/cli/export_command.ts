/** `deno task schedule export`: a schedule with what it takes to run it in PyTorch. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { type Command, InvalidArgumentError } from "commander";
import { UserError } from "../errors.ts";
import { checkOutputFolder, writeFolder, writeOutput } from "../output.ts";
import { variantOf } from "../report/schedule.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { toCsv } from "../schedules/csv/csv.ts";
import { checkPartition, megatronLayout, torchtitanLines } from "../schedules/csv/frameworks.ts";
import { blocksOfLayout } from "../schedules/csv/layout.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { shown } from "../text.ts";
import { integer, oneOf, reading } from "./options.ts";

/** The flags of the command itself; the others are those of `show`. */
export interface ExportFlags {
  /** `--to`. */
  to: "torch";
  /** `--partition`. */
  partition?: number[];
}

/** Adds the flags of the command to one that has those of a schedule. */
export function exportFlags(command: Command): Command {
  const layers = integer(0, 4096);
  return command
    .argument("<folder>", "new folder for plan.csv, plan.comms.csv, run.py and README.md")
    .requiredOption("--to <framework>", "whom it is for: torch", oneOf(["torch"]))
    .option(
      "--partition <n,n,...>",
      "transformer layers of each stage, for Megatron's layout and torchtitan's module names; or such a layout: Et*3|t*4,L",
      (text: string) => {
        const counts = /[EtmL|]/.test(text) ? reading(blocksOfLayout)(text) : text.split(",").map(layers);
        if (counts.some((count) => count > 0)) return counts;
        throw new InvalidArgumentError("It must have a layer somewhere.");
      },
    );
}

/**
 * Writes the folder and says what is in it.
 *
 * @throws {UserError} For a folder that cannot be written, a schedule without backward passes, a rank without an action, and a
 * partition of other sizes.
 */
export async function exportTo(schedule: Schedule, folder: string, { partition }: ExportFlags): Promise<void> {
  checkOutputFolder("export", folder);
  if (!schedule.actions.flat().some(({ kind }) => kind !== "F")) {
    throw new UserError(
      "export writes a training step, whose gradients run.py compares, and this schedule has forward passes alone; " +
        "schedule show --csv FILE writes those",
    );
  }
  if (partition) checkPartition(schedule, partition);
  const files: Record<string, string> = {
    "plan.csv": toCsv(schedule, { for: "torch" }),
    "plan.comms.csv": toCsv(schedule, { for: "torch", transfers: true }),
    "run.py": readFileSync(new URL("torch/run.py", import.meta.url), "utf8"),
    "README.md": readme(schedule, partition),
  };
  await writeFolder(folder, (to) => {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(to, name), text);
    return Promise.resolve();
  });
  for (const lost of lostOf(schedule)) process.stderr.write(`schedule: ${lost}\n`);
  writeOutput("-", `${titleOf(schedule)} in ${shown(folder)}: ${Object.keys(files).join(", ")}\n`);
  const program = shown(join(folder, "run.py"));
  writeOutput("-", `Run it: python ${/\s/.test(program) ? `"${program}"` : program}\n`);
}

function titleOf(schedule: Schedule): string {
  const { devices, stages, microbatches } = sizesOf(schedule);
  return `${variantOf(schedule)} on ${devices} ranks, ${stages} stages, ${microbatches} micro-batches`;
}

/** What PyTorch has not, a sentence each; none where nothing is lost. */
function lostOf({ actions }: Schedule): string[] {
  const all = actions.flat(), wide = all.filter(({ microbatches }) => microbatches.length > 1);
  const ahead = all.filter(({ kind }) => kind === "R").length;
  const most = wide.reduce((width, { microbatches }) => Math.max(width, microbatches.length), 0);
  return [
    ...wide.length === 0 ? [] : [
      `${wide.length} W of up to ${most} micro-batches are written as single W, one after the other: PyTorch has no ` +
      "other, and what one kernel for all of them saves is lost",
    ],
    ...ahead === 0 ? [] : [
      `${ahead} R are left out: PyTorch has none, and what a backward recomputes there it recomputes itself`,
    ],
  ];
}

/** A few lines: how to run it, and what torchtitan and Megatron-LM have to be told. */
function readme(schedule: Schedule, partition?: readonly number[]): string {
  const { devices, stages } = sizesOf(schedule);
  const titan = torchtitanLines(schedule, "plan.csv", partition);
  const code = (language: string, ...lines: string[]) => ["", `\`\`\`${language}`, ...lines, "```"];
  const lines = [
    `# ${titleOf(schedule)}`,
    "",
    "`plan.csv` has the actions alone: PyTorch adds the transfers when it loads it. `plan.comms.csv` has them too, with",
    'UNSHARD, REDUCE_GRAD and RESHARD; it is loaded with `format="compute_comms"`, and torchtitan does not take it.',
    `Stage by stage the ranks are ${schedule.placement.join(", ")}.`,
    ...lostOf(schedule).flatMap((lost) => ["", `${lost}.`]),
    "",
    "`run.py` loads either in PyTorch (2.15, or one with the same names), compares all gradients with one full-batch pass",
    "and times it beside PyTorch's own 1F1B of the same layers:",
    ...code("sh", "python run.py", "python run.py --plan plan.comms.csv", "python run.py --model mine.py"),
    "",
    "## torchtitan",
    "",
  ];
  if (titan) {
    lines.push("The schedule's name there is for the placement; without it the stages would be on other ranks.");
    if (!partition && stages > 2 * devices) {
      lines.push(
        `It makes two stages a rank unless told otherwise, and these are ${stages / devices}: set`,
        "`module_fqns_per_model_part` or `pipeline_parallel_layers_per_stage` (`schedule export --partition` writes the first).",
      );
    }
    lines.push(...code("python", ...titan));
  } else {
    lines.push(
      "It does not take this placement: it knows stages dealt out round after round, and down and up again with two a rank.",
      "PyTorch's runtime does, as `run.py` shows.",
    );
  }
  lines.push("", "## Megatron-LM", "");
  const layout = partition && megatronLayout(schedule, partition);
  if (layout) {
    lines.push(
      "It reads no order of actions and runs its own, but takes the partition:",
      ...code(
        "sh",
        `--num-layers ${partition.reduce((sum, count) => sum + count)} --pipeline-model-parallel-size ${devices} ` +
          `--pipeline-model-parallel-layout "${layout}"`,
      ),
    );
  } else if (partition) {
    lines.push("Neither order nor placement: its stages go round the ranks, and these do not.");
  } else {
    lines.push(
      "It reads no order of actions, only a partition: `schedule export --partition n,n,...`, the layers of each stage, writes it here.",
    );
  }
  return `${lines.join("\n")}\n`;
}
