/** `deno task bench`: all measurements of this project; `throughput` is the default. */
import { Command } from "commander";
import { main } from "../lib/cli/options.ts";
import { agreement } from "./agreement.ts";
import { atlas } from "./atlas.ts";
import { gpu } from "./gpu.ts";
import { kernels } from "./kernels.ts";
import { loop } from "./loop.ts";
import { memory } from "./memory.ts";
import { paper } from "./paper.ts";
import { planned } from "./plan.ts";
import { peers } from "./peers/command.ts";
import { torch } from "./peers/torch_schedules.ts";
import { replicas } from "./replicas.ts";
import { sampling } from "./sampling.ts";
import { scaling } from "./scaling.ts";
import { processes } from "./processes.ts";
import { schedules } from "./schedules.ts";
import { throughput } from "./throughput.ts";
import { training } from "./training.ts";

await main(
  new Command("bench").description("Measurements.")
    .addCommand(throughput, { isDefault: true })
    .addCommand(agreement)
    .addCommand(atlas)
    .addCommand(gpu)
    .addCommand(kernels)
    .addCommand(loop)
    .addCommand(memory)
    .addCommand(paper)
    .addCommand(peers)
    .addCommand(planned)
    .addCommand(processes)
    .addCommand(replicas)
    .addCommand(sampling)
    .addCommand(scaling)
    .addCommand(schedules)
    .addCommand(torch)
    .addCommand(training)
    .addHelpText(
      "after",
      () => `\nWithout a command:\n\n${throughput.helpInformation()}`,
    ),
);
