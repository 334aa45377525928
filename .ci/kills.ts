/**
 * Whether a training survives being killed: 200 updates with a checkpoint after every third, ended by SIGKILL at a random moment, 20
 * times over. Each of them is then resumed: on the 2 devices that it had it must end with the bits of the one that nobody killed, and
 * on 1 or on 4, in turn, with the same to 1e-5, in every loss and, by their norm, in the parameters.
 * `deno run -A --no-check .ci/kills.ts [number of kills, 20 by default] [a file for the figures, as JSON]`. Not on Windows.
 */
import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { adamw, createPipeline, generate, openDevices, textSource, twoStage } from "twobp";
import { llama } from "twobp/models";
import { cosineDecay, train } from "twobp/train";
import { openOutputs } from "../lib/cli/outputs.ts";
import { generator } from "../lib/random.ts";
import { lastWhole } from "../lib/training/checkpoint_folder.ts";
import { openTensorFile } from "../lib/weights/safetensors.ts";

const steps = 200, every = 3, bound = 1e-5;

/** The training, in a process of its own: it goes on from what is in its folder, and says each loss. */
async function trainIn(folder: string, devices: number) {
  const text = new TextEncoder().encode("to be or not to be, that is the question. ".repeat(20));
  const length = 16;
  const model = llama("killed", {
    ...{ vocabulary: 256, width: 32, blocks: 4, heads: 2, hidden: 64, length, dropout: 0.1 },
  });
  const set = await openDevices(devices);
  const pipeline = createPipeline(set, model, { optimizer: adamw({ learningRate: 3e-3 }), seed: 3 });
  const { resumed } = await train(pipeline, {
    schedule: twoStage(generate("1f1b", { devices, microbatches: 2 })),
    data: { open: (from) => textSource(text, { length, seed: 5, from }) },
    ...{ samples: 4, steps, clip: 1, learningRate: cosineDecay({ steps, warmUp: 10 }) },
    ...{ resume: true, save: { folder, every, keep: 2 } },
    onStep: ({ step, loss }) => process.stdout.write(`step ${step} ${loss}\n`),
  });
  process.stdout.write(`resumed ${resumed?.step ?? 0}, damaged ${resumed?.damaged.length ?? 0}\n`);
  pipeline.close();
  set.close();
}

/** Starts it. */
function start(folder: string, devices: number) {
  const runtime = process.versions.deno ? ["run", "-A", "--no-check"] : process.versions.bun ? [] : ["--import", "tsx"];
  const child = spawn(process.execPath, [...runtime, fileURLToPath(import.meta.url), "train", folder, String(devices)]);
  let stdout = "", stderr = "";
  const heard = new Set<() => void>();
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
    heard.forEach((each) => each());
  });
  child.stderr.on("data", (chunk) => stderr += chunk);
  const done = new Promise<{ code: number | null; losses: Map<number, number>; stdout: string }>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => {
      if (stderr !== "") return reject(new Error(`A training on ${devices} devices said: ${stderr}`));
      const losses = new Map([...stdout.matchAll(/^step (\d+) (\S+)$/gm)].map(([, step, loss]) => [+step, +loss]));
      resolve({ code, losses, stdout });
    })
  );
  /** Waits until it has made an update, or has ended. */
  const made = (step: number) =>
    new Promise<void>((resolve) => {
      const look = () => stdout.includes(`step ${step} `) && resolve();
      heard.add(look);
      look();
      done.then(() => resolve(), () => resolve());
    });
  return { child, done, made };
}

/** What it ends with: parameters and what the optimizer keeps, by file and name. */
function valuesOf(folder: string): Map<string, Float32Array> {
  const { path } = lastWhole(folder)!, values = new Map<string, Float32Array>();
  for (const file of ["model", "optimizer"]) {
    const opened = openTensorFile(join(path, `${file}.safetensors`));
    for (const name of opened.tensors.keys()) values.set(`${file} ${name}`, opened.read(name));
    opened.close();
  }
  return values;
}

type Values = ReturnType<typeof valuesOf>;

/** Whether all bits are the same. */
function isEqual(one: Values, other: Values): boolean {
  const bytes = (array: Float32Array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  return one.size === other.size && one.size > 0 &&
    [...one].every(([name, values]) => other.has(name) && bytes(values).equals(bytes(other.get(name)!)));
}

/** Norm of the difference of all parameters over the norm of the parameters. */
function distance(one: Values, other: Values): number {
  let difference = 0, size = 0;
  for (const [name, values] of one) {
    if (!name.startsWith("model ")) continue;
    const others = other.get(name)!;
    values.forEach((value, at) => {
      difference += (value - others[at]) ** 2;
      size += value ** 2;
    });
  }
  return Math.sqrt(difference / size);
}

/** Largest relative difference of the losses that both have. */
const apart = (one: ReadonlyMap<number, number>, other: ReadonlyMap<number, number>) =>
  [...one].reduce((most, [step, loss]) => Math.max(most, Math.abs(loss - other.get(step)!) / Math.abs(loss)), 0);

async function kill(count: number, json?: string) {
  const out = openOutputs({ ...json === undefined ? {} : { json } });
  const root = mkdtempSync(join(tmpdir(), "twobp-kills-")), random = generator("kills");
  const wrong: string[] = [];
  try {
    const whole = join(root, "whole");
    const undisturbed = await start(whole, 2).done, bits = valuesOf(whole);
    if (undisturbed.losses.size !== steps) throw new Error("The undisturbed training has not made all updates");
    const rows = [];
    while (rows.length < count) {
      const number = rows.length + 1, folder = join(root, `killed-${number}`);
      const killed = start(folder, 2);
      await killed.made(random.integer(steps));
      await new Promise((later) => setTimeout(later, 40 * random.uniform()));
      process.kill(killed.child.pid!, "SIGKILL");
      const { losses, stdout } = await killed.done;
      if (/^resumed/m.test(stdout)) { // it had ended before
        rmSync(folder, { recursive: true });
        continue;
      }
      const damaged: string[] = [], from = Number(lastWhole(folder, damaged)?.description.step ?? 0);
      if (damaged.length > 0) {
        wrong.push(`kill ${number} has left a checkpoint that is not whole: ${damaged.join("; ")}`);
      }
      const writing = existsSync(folder) && readdirSync(folder).some((name) => name.endsWith(".tmp"));
      const row: Record<string, unknown> = { number, updates: losses.size, writing, resumedFrom: from };
      for (const devices of [2, number % 2 === 0 ? 4 : 1]) {
        const own = join(root, `resumed-${number}-${devices}`);
        if (existsSync(folder)) cpSync(folder, own, { recursive: true });
        const resumed = await start(own, devices).done;
        if (resumed.losses.size !== steps - from) {
          wrong.push(`kill ${number}: on ${devices} devices ${resumed.losses.size} of ${steps - from} updates`);
        }
        const values = valuesOf(own), same = isEqual(values, bits), losses = apart(resumed.losses, undisturbed.losses);
        const parameters = distance(values, bits);
        row[`on${devices}`] = { same, losses, parameters };
        if (devices === 2 && !same) wrong.push(`kill ${number}: resumed on 2 devices it ends with other bits`);
        if (!(losses <= bound && parameters <= bound)) {
          wrong.push(`kill ${number}: on ${devices} devices losses differ by ${losses}, parameters by ${parameters}`);
        }
        rmSync(own, { recursive: true });
      }
      rmSync(folder, { recursive: true, force: true });
      rows.push(row);
      out.say(JSON.stringify(row));
    }
    if (!rows.some(({ writing }) => writing)) wrong.push("no kill has come while a checkpoint was written");
    await out.results(".ci/kills.ts", {
      title: "Killed trainings",
      report: { schema: 1, steps, every, rows, wrong },
      sections: () => [],
    });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
  console.log(wrong.length ? wrong.join("\n") : `All ${count} end as if nobody had killed them.`);
  return wrong.length;
}

const [what, ...given] = process.argv.slice(2);
if (what === "train") {
  await trainIn(given[0], Number(given[1]));
  process.exit(0);
}
process.exit(await kill(Number(what ?? 20), given[0]) > 0 ? 1 : 0);
