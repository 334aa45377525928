/**
 * Training steps of this checkout against those of another, in turns: a process for each, on the driver that the environment asks for.
 * `deno run -A --no-check .ci/against.ts OTHER [file for the figures, as JSON] [rounds, 15 by default]`. OTHER is a folder with
 * another commit and its node_modules: `git archive COMMIT | tar -x -C out/other; ln -s ../../node_modules out/other/node_modules`.
 */
import { spawn } from "node:child_process";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { openOutputs } from "../lib/cli/outputs.ts";
import { openDevices } from "../lib/gpu/devices.ts";
import { medianInterval } from "../lib/measure/bootstrap.ts";
import { blankBatch } from "../lib/measure/memory.ts";
import { kept, median, quartiles } from "../lib/measure/statistics.ts";
import { llama, llamaConfigurations } from "../lib/models/llama.ts";
import { createModel } from "../lib/models/registry.ts";
import { createPipeline } from "../lib/runtime/pipeline.ts";
import { generate } from "../lib/schedules/generators/generate.ts";
import { adamw } from "../lib/train/optimizers.ts";

/** Models with their sequences' length, where it is another than theirs, and samples in a step. */
const jobs = [["resnet-tiny", 0, 4], ["llama-tiny", 256, 2], ["llama-tiny", 512, 1]] as const;

/** A step for each line of standard input, and a line with what it took; the first says what it runs on. */
async function answer(name: string, length: number, samples: number): Promise<void> {
  const model = length > 0 ? llama(name, { ...llamaConfigurations[name], length }) : createModel(name);
  const set = await openDevices(1), batch = blankBatch(model, samples);
  const pipeline = createPipeline(set, model, { optimizer: adamw() });
  const schedule = generate("gpipe", { devices: 1, microbatches: 1 });
  for (let compiling = 0; compiling < 2; compiling++) await pipeline.step(schedule, batch);
  console.log(JSON.stringify({ adapter: set.adapter }));
  for await (const _ of createInterface({ input: process.stdin })) {
    const start = performance.now(), before = process.cpuUsage();
    const { loss } = await pipeline.step(schedule, batch);
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ ms: performance.now() - start, cpuMs: (user + system) / 1000, loss }));
  }
  process.exit();
}

/** A process in a checkout that answers. */
function start(folder: string, job: readonly (string | number)[]) {
  const script = join(folder, ".ci/against.ts"), own = fileURLToPath(import.meta.url);
  if (script !== own) copyFileSync(own, script);
  const child = spawn(process.execPath, ["run", "-A", "--no-check", ".ci/against.ts", "answer", ...job.map(String)], {
    cwd: folder,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`The process in ${folder} has ended`);
    return JSON.parse(value);
  };
  return {
    next,
    step(): Promise<{ ms: number; cpuMs: number; loss: number }> {
      child.stdin.write("\n");
      return next();
    },
    end: () => child.stdin.end(),
  };
}

/** Times of one side, in milliseconds. */
const summary = (each: readonly number[]) => ({ median: median(each), quartiles: quartiles(each), each: kept(each) });

async function compare(other: string, json: string | undefined, rounds: number): Promise<void> {
  const out = openOutputs({ json }), here = fileURLToPath(new URL("..", import.meta.url)), rows: object[] = [];
  let adapter = "";
  for (const job of jobs) {
    const sides = [join(here, other), here].map((folder) => start(folder, job));
    for (const side of sides) ({ adapter } = await side.next());
    const taken: Record<"ms" | "cpuMs" | "loss", number>[][] = [[], []];
    for (let round = 0; round < rounds; round++) {
      for (const at of round % 2 === 0 ? [0, 1] : [1, 0]) taken[at].push(await sides[at].step());
    }
    for (const side of sides) side.end();
    const [before, after] = taken, [model, length, samples] = job;
    const of = (what: "ms" | "cpuMs") => {
      const ratios = before.map((each, at) => each[what] / after[at][what]);
      const [old, now] = taken.map((steps) => summary(steps.map((each) => each[what])));
      return { before: old, after: now, ratio: { ...summary(ratios), interval: medianInterval(ratios) } };
    };
    const row = { model, ...length > 0 && { length }, samples, step: of("ms"), processor: of("cpuMs") };
    const off = Math.max(...before.map(({ loss }, at) => Math.abs(loss / after[at].loss - 1)));
    rows.push({ ...row, lossesDiffer: off });
    const { before: old, after: now, ratio } = row.step, [low, high] = ratio.quartiles;
    out.say(
      `${model}${length > 0 ? ` of ${length} tokens` : ""}, ${samples} samples: ${old.median.toFixed(0)} ms before, ` +
        `${now.median.toFixed(0)} after, ${ratio.median.toFixed(2)} times as fast (${low.toFixed(2)} to ${
          high.toFixed(2)
        }); ` +
        `processor time ${row.processor.ratio.median.toFixed(2)}; losses differ by ${off.toExponential(1)}`,
    );
  }
  await out.results("deno run -A --no-check .ci/against.ts", {
    title: "Against another checkout",
    report: { schema: 1, adapter, rounds, rows },
    sections: () => [],
  });
}

const [first, ...rest] = process.argv.slice(2);
if (first === "answer") await answer(rest[0], Number(rest[1]), Number(rest[2]));
else await compare(first, rest[0], Number(rest[1] ?? 15));
