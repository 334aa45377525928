/** `deno task train`: trains a model on texts or images through a pipeline. */
import process from "node:process";
import { Command } from "commander";
import { measurePeak } from "../measure/peak.ts";
import { partitionTable } from "../report/partition.ts";
import { tableText } from "../report/table.ts";
import { trainingSections } from "../report/training.ts";
import { createPipeline } from "../runtime/pipeline.ts";
import { withRecompute } from "../runtime/recompute.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import { saveAdapters } from "../weights/adapters.ts";
import { loadWeights } from "../weights/checkpoint.ts";
import { applyConfig } from "./config_file.ts";
import { onNextEnding } from "./endings.ts";
import * as flag from "./flags.ts";
import { bytes, expression, integer, oneOf, real } from "./options.ts";
import { openOutputs } from "./outputs.ts";
import { rateNames, usualRates } from "./training_optimizer.ts";
import { runTraining, titleOf } from "./training_run.ts";
import { expectFits, prepare, type TrainFlags } from "./training_settings.ts";
import { countDevices } from "../runtime/world.ts";
import { codeOfAll, withDevices } from "./with_devices.ts";

const rates = Object.entries(usualRates).map(([name, rate]) => `${rate} for ${name}`).join(", ");
const steps = integer(1, 1e9);
const joined = zoo.filter(({ twoStage }) => twoStage?.joined).map(({ name }) => name).join(" and ");

/** The command line. */
export function trainCommand(): Command {
  const command = new Command("train")
    .description(
      "Train a model on texts or images through a pipeline, without or with 2BP. Ctrl-C ends it after the update that is under way, and saves.",
    )
    .option("--config <file>", 'JSON with any of these settings by name, as in {"steps": 100}; flags go before it')
    .addOption(flag.model(undefined, [], " (default: llama-tiny)"))
    .option("--from <folder>", "a model with its weights, as Hugging Face has them: config.json and safetensors")
    .option("--length <n>", "tokens in a sequence, with --from (default: up to 2048)", integer(1, 2 ** 20))
    .option("--lora <rank>", "train adapters of this rank alone (LoRA), and freeze the model", integer(1, 65_536))
    .option(
      "--lora-alpha <a>",
      "what adapters are multiplied with, times the rank (default: the rank)",
      real(1e-9, 1e9),
    )
    .option(
      "--lora-targets <expression>",
      "projections that have an adapter, by a regular expression in their names (default: all but the head)",
      expression,
    )
    .option("--adapters <folder>", "write the adapters to a folder of their own at the end, as PEFT does")
    .option(
      "--data <path>",
      "a text, JSON lines, Parquet, or a folder of them; for ResNet a folder of class folders " +
        "(default: this project's sources, or synthetic images)",
    )
    .option("--field <name>", "where a line of JSON or a row of Parquet has its text (default: text)")
    .option("--tokenizer <path>", "a tokenizer.json, or its folder (default: that of --from, or bytes)")
    .option("--schedule <name>", "a schedule, or a CSV file of one", "1f1b-1")
    .addOption(flag.twoStage())
    .addOption(flag.policy(`fill; for ${joined} end in one W`))
    .addOption(flag.width(65_536))
    .addOption(flag.devicesOfReplicas(64, 2))
    .addOption(flag.replicas(64))
    .addOption(flag.shardOptimizer())
    .addOption(flag.microbatches(1024, "the schedule's usual number"))
    .addOption(flag.virtual("run all ranks on one device, in turn"))
    .option(
      "--layout <text>",
      "layers of each stage, as Megatron-LM writes them: Et*3|t*4,L with t a block (default: of even work)",
    )
    .addOption(flag.samples(4))
    .option("--accumulate <k>", "batches that make one update, 1 to 65536", integer(1, 65_536), 1)
    .option("--steps <n>", "updates", steps, 200)
    .option("--optimizer <name>", Object.keys(usualRates).join(", "), oneOf(Object.keys(usualRates)), "adamw")
    .option("--lr <rate>", `learning rate at its peak (default: ${rates})`, real(0, 1e6))
    .option("--lr-schedule <name>", rateNames.join(", "), oneOf(rateNames), "constant")
    .option("--warm-up <n>", "updates in which the learning rate rises (default: 0)", integer(0, 1e9))
    .option("--lr-decay <n>", "last updates, in which warm-up-stable-decay falls (default: a fifth)", steps)
    .option("--lr-end <share>", "what the learning rate falls to, as a share of its peak (default: 0)", real(0, 1))
    .option("--weight-decay <share>", "of matrices (default: the optimizer's)", real(0, 1e6))
    .option("--momentum <share>", "of sgd and muon (default: the optimizer's)", real(0, 0.999999))
    .option("--clip <norm>", "the most that the norm of all gradients may be (default: not clipped)", real(1e-30, 1e30))
    .addOption(flag.seed())
    .addOption(flag.precision())
    .addOption(flag.recompute())
    .addOption(flag.recomputeAhead())
    .addOption(flag.splitStages())
    .addOption(flag.sums())
    .option("--budget <size>", "the most memory that each device may take: 24GiB, 800MiB, 16e9", bytes)
    .option("--eval-every <k>", "evaluate after so many updates and at the end (default: never)", steps)
    .option("--eval-batches <n>", "batches in an evaluation, always the same (default: 4)", integer(1, 1e6))
    .option("--held-out <share>", "of the data, for evaluations (default: 0.1 with --eval-every)", real(0.000001, 0.5))
    .option("--patience <n>", "evaluations in a row without a better loss that end the training", steps)
    .option("--save <folder>", "save all that it takes to go on, a folder for each checkpoint")
    .option("--save-every <k>", "after so many updates, besides at the end (default: 100)", steps)
    .option("--keep <n>", "checkpoints that are kept, the last ones (default: 2)", steps)
    .option("--resume", "go on from the last whole checkpoint in the folder of --save, where there is one")
    .option("--metrics <file>", "write a line of JSON for each update and evaluation, at once; - for standard output")
    .addOption(flag.json("settings and all updates"))
    .addOption(flag.html("the curves"))
    .addOption(flag.out());
  return command.action(async () => {
    const { config } = command.opts<TrainFlags>();
    if (config !== undefined) applyConfig(command, config);
    await run(command.opts<TrainFlags>());
  });
}

/** Trains as the flags say; ends the process where a signal has ended the training. */
async function run(flags: TrainFlags): Promise<void> {
  const out = openOutputs(flags);
  const training = await prepare(flags);
  const { model, schedule, parts: plain, data, replicas } = training;
  const code = await withDevices(
    schedule.actions.length * replicas,
    { virtual: flags.virtual, inJob: true, replicas, say: out.say },
    async (set) => {
      const parts = withRecompute(plain, flags.recompute);
      out.say(titleOf(training, set));
      out.say(tableText(partitionTable(model, parts)));
      out.say(`Data: ${data.name}.`);
      await expectFits(training, set);
      const { optimizer } = training, { placement } = schedule;
      const { seed, precision, recompute, sums, budget, shardOptimizer } = flags;
      const pipeline = createPipeline(set, model, {
        ...{ optimizer, placement, parts: plain, replicas, shardOptimizer, seed, precision, recompute, sums },
        ...budget === undefined ? {} : { budget },
      });
      try {
        const gflops = (await measurePeak(set.devices[0])).gflops * (set.mode === "real" ? countDevices(set) : 1);
        if (flags.from !== undefined) loadWeights(pipeline, flags.from);
        const stop = new AbortController();
        let code = 0;
        onNextEnding((given) => {
          code = given;
          stop.abort();
        });
        const { report, failure } = await runTraining(training, {
          set,
          pipeline,
          gflops,
          signal: stop.signal,
          say: out.say,
        });
        out.say(`\n${report.ended}`);
        if (flags.adapters !== undefined && !failure) await saveAdapters(pipeline, flags.adapters);
        await out.results("train", { title: "Training", report, sections: () => trainingSections(report) });
        if (failure) throw failure.error;
        return await codeOfAll(set, code);
      } finally {
        pipeline.close();
      }
    },
  );
  if (code !== 0) process.exit(code);
}
