/**
 * Whether a process grows that opens and closes all day: 1,000 steps, 2,000 updates of `train()`, 200 models of different shapes, 60
 * pipelines of one, 50 sets of devices, in one process. Prints resident memory, descriptors, threads and mappings, and fails where
 * the last third ends with more than the one before. `deno run -A --no-check .ci/endurance.ts [share of the numbers, 1 by default]
 * [a file for the figures, as JSON] [one of steps, updates, models, pipelines, "sets of devices" alone]`; in Node `npx tsx`.
 * Linux only: elsewhere there is nothing to count.
 */
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { openOutputs } from "../lib/cli/outputs.ts";
import { collectGarbage } from "../lib/gpu/garbage.ts";
import { adamw, createPipeline, type DeviceSet, generate, openDevices, textSource, twoStage } from "twobp";
import { llama } from "twobp/models";
import { train as trainLoop } from "twobp/train";

const [given = "1", json, only] = process.argv.slice(2), share = Number(given);
const out = openOutputs(json === undefined ? {} : { json });
const schedule = twoStage(generate("1f1b-1", { devices: 2 }));
const bytes = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(50));
const source = (length: number) => textSource(bytes, { length, seed: 1 });
const model = (width = 64, length = 32) =>
  llama("t", { vocabulary: 256, width, blocks: 2, heads: 2, hidden: 2 * width, length });

async function train(set: DeviceSet, steps: number, width?: number, length = 32) {
  const pipeline = createPipeline(set, model(width, length), { optimizer: adamw() });
  const text = source(length);
  for (let step = 0; step < steps; step++) await pipeline.step(schedule, text.next(4));
  pipeline.close();
}

/** What the process has, once nothing is left to free. */
async function look() {
  for (let round = 0; round < 5; round++) {
    collectGarbage();
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  const status = readFileSync("/proc/self/status", "utf8");
  const read = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)![1]);
  return {
    residentMB: Math.round(read("VmRSS") / 1024),
    descriptors: readdirSync("/proc/self/fd").length,
    threads: read("Threads"),
    mappings: readFileSync("/proc/self/maps", "utf8").split("\n").length,
  };
}

/** What growth is no accident: the engine's heap and the driver's caches come and go. */
const allowed = { residentMB: 60, descriptors: 3, threads: 3, mappings: 1500 };

const thirdOf = (count: number) => Math.max(2, Math.round(count * share / 3));

type Counts = Awaited<ReturnType<typeof look>>;
const grown: string[] = [], rows: { times: number; what: string; counts: Counts[] }[] = [];

/** Does something so many times, looks a third of the way, at two thirds and at the end, and says what grew from the second to the third. */
const repeat = (what: string, count: number, body: (index: number) => Promise<void>) =>
  watch(what, count, async (times, each) => {
    for (let index = 0; index < times; index++) {
      await body(index);
      await each(index);
    }
  });

/** The same with what does it so many times by itself, and says after each that it has been done. */
async function watch(
  what: string,
  count: number,
  run: (times: number, each: (index: number) => Promise<void>) => Promise<void>,
) {
  if (only !== undefined && only !== what) return;
  const third = thirdOf(count);
  const looks: Counts[] = [];
  await run(3 * third, async (index) => {
    if ((index + 1) % third === 0) looks.push(await look());
  });
  rows.push({ times: 3 * third, what, counts: looks });
  for (const name of Object.keys(allowed) as (keyof Counts)[]) {
    const values = looks.map((each) => each[name]);
    console.log(
      `${String(3 * third).padStart(6)} ${what.padEnd(16)} ${name.padEnd(12)} ${
        values.map((n) => String(n).padStart(7)).join("")
      }`,
    );
    if (values[2] - values[1] > allowed[name]) {
      grown.push(`${name} from ${values[1]} to ${values[2]} over ${third} ${what}`);
    }
  }
}

if (process.platform === "linux") {
  const set = await openDevices(2);
  const pipeline = createPipeline(set, model(), { optimizer: adamw() });
  const text = source(32);
  await repeat("steps", 1000, async () => void await pipeline.step(schedule, text.next(4)));
  // With the rates, clipping and evaluations that a training has.
  await watch("updates", 2000, async (steps, each) => {
    await trainLoop(pipeline, {
      ...{ schedule, data: text, samples: 4, steps, learningRate: () => 0.1, clip: 1 },
      evaluation: { every: 50, batches: [text.next(4)] },
      onStep: ({ step }) => each(step),
    });
  });
  pipeline.close();
  // Compiled kernels are kept up to a number: where fewer shapes than that come, each third has the same.
  const shapes = share < 1 ? thirdOf(200) : 200;
  await repeat("models", 200, (index) => train(set, 1, 8 + 4 * (index % shapes % 100), 16 + 8 * (index % shapes % 7)));
  await repeat("pipelines", 60, () => train(set, 2));
  set.close();
  await repeat("sets of devices", 50, async () => {
    const each = await openDevices(2);
    await train(each, 1);
    each.close();
  });
  await out.results(".ci/endurance.ts", {
    title: "Growth of a process",
    report: { schema: 1, share, allowed, rows, grown },
    sections: () => [],
  });
  console.log(grown.length ? `It grows: ${grown.join("; ")}` : "Nothing grows.");
}
process.exit(grown.length ? 1 : 0);
