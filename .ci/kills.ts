/**
 * Whether a training survives being killed: 200 updates with a checkpoint after every third, ended by SIGKILL at a random moment, 20
 * times over. Each of them is then resumed here: on the 2 devices that it had it must end with the bits of the one that nobody killed,
 * and on 1 and on 4 with the same to 1e-5, in every loss and, by their norm, in the parameters.
 * `deno run -A --no-check .ci/kills.ts [number of kills, 20 by default] [a file for the figures, as JSON]`. Not on Windows.
 */
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { type DeviceSet, openDevices } from "twobp";
import { openOutputs } from "../lib/cli/outputs.ts";
import { type Generator, generator } from "../lib/random.ts";
import { lastWhole } from "../lib/training/checkpoint_folder.ts";
import { every, isEqual, trainIn, type Values, valuesOf } from "./killed_training.ts";

const steps = 200, bound = 1e-5;

type Losses = Map<number, number>;

/** It on devices of this process: the losses of the updates that it makes. */
async function lossesOf(folder: string, set: DeviceSet): Promise<Losses> {
  const losses: Losses = new Map();
  await trainIn(folder, set, steps, ({ step, loss }) => void losses.set(step, loss));
  return losses;
}

/** Starts it in a process of its own, on 2 devices, which says each update. */
function start(folder: string) {
  const runtime = process.versions.deno ? ["run", "-A", "--no-check"] : process.versions.bun ? [] : ["--import", "tsx"];
  const child = spawn(process.execPath, [...runtime, fileURLToPath(import.meta.url), "train", folder]);
  let stdout = "", stderr = "";
  const heard = new Set<() => void>();
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
    heard.forEach((each) => each());
  });
  child.stderr.on("data", (chunk) => stderr += chunk);
  /** How many updates it has said, and whether it has come to its end. */
  const done = new Promise<{ updates: number; ended: boolean }>((resolve, reject) =>
    child.once("error", reject).once("close", (code) => {
      if (stderr !== "") return reject(new Error(`A training said: ${stderr}`));
      resolve({ updates: stdout.split("\n").length - 1, ended: code === 0 });
    })
  );
  /** Waits until it has made an update, or has ended. */
  const made = (step: number) =>
    new Promise<void>((resolve) => {
      const look = () => stdout.includes(`step ${step}\n`) && resolve();
      heard.add(look);
      look();
      done.then(() => resolve(), () => resolve());
    });
  return { child, done, made };
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
const apart = (one: Losses, other: Losses) =>
  [...one].reduce((most, [step, loss]) => Math.max(most, Math.abs(loss - other.get(step)!) / Math.abs(loss)), 0);

/** How far a training had come that was killed. */
interface Killed {
  /** It has said so many. */
  readonly updates: number;
  /** Whether a checkpoint was being written. */
  readonly writing: boolean;
  /** The updates in its last whole checkpoint. */
  readonly resumedFrom: number;
}

/** Starts the training in a folder, kills it at a random moment, and says how far it had come; nothing where it had ended before. */
async function killed(folder: string, random: Generator): Promise<Killed & { damaged: string[] } | undefined> {
  const { child, done, made } = start(folder);
  await made(random.integer(steps));
  await new Promise((later) => setTimeout(later, 40 * random.uniform()));
  child.kill("SIGKILL");
  const { updates, ended } = await done;
  if (ended) return undefined;
  const damaged: string[] = [], from = Number(lastWhole(folder, damaged)?.description.step ?? 0);
  const writing = existsSync(folder) && readdirSync(folder).some((name) => name.endsWith(".tmp"));
  return { updates, writing, resumedFrom: from, damaged };
}

async function kills(count: number, json?: string) {
  const out = openOutputs(json === undefined ? {} : { json });
  const root = mkdtempSync(join(tmpdir(), "twobp-kills-")), random = generator("kills");
  const wrong: string[] = [], rows: (Killed & { number: number; resumed: object[] })[] = [];
  const sets = [await openDevices(2), await openDevices(1), await openDevices(4)];
  try {
    const whole = join(root, "whole");
    const undisturbed = await lossesOf(whole, sets[0]), bits = valuesOf(whole);
    while (rows.length < count) {
      const number = rows.length + 1, folder = join(root, `killed-${number}`);
      const how = await killed(folder, random);
      if (!how) {
        rmSync(folder, { recursive: true });
        continue;
      }
      const { damaged, ...found } = how;
      if (damaged.length > 0) {
        wrong.push(`kill ${number} has left a checkpoint that is not whole: ${damaged.join("; ")}`);
      }
      const resumed = [];
      for (const set of sets) {
        const devices = set.devices.length, own = join(root, `resumed-${number}-${devices}`);
        if (existsSync(folder)) cpSync(folder, own, { recursive: true });
        const made = await lossesOf(own, set), values = valuesOf(own);
        const [same, losses, parameters] = [isEqual(values, bits), apart(made, undisturbed), distance(values, bits)];
        resumed.push({ devices, mode: set.mode, updates: made.size, same, losses, parameters });
        if (made.size !== steps - found.resumedFrom) {
          wrong.push(`kill ${number}: on ${devices} devices ${made.size} of ${steps - found.resumedFrom} updates`);
        }
        if (devices === 2 && !same) wrong.push(`kill ${number}: resumed on 2 devices it ends with other bits`);
        if (!(losses <= bound && parameters <= bound)) {
          wrong.push(`kill ${number}: on ${devices} devices losses differ by ${losses}, parameters by ${parameters}`);
        }
        rmSync(own, { recursive: true });
      }
      rmSync(folder, { recursive: true, force: true });
      rows.push({ number, ...found, resumed });
      out.say(JSON.stringify(rows[number - 1]));
    }
    if (!rows.some(({ writing }) => writing)) wrong.push("no kill has come while a checkpoint was written");
    await out.results(".ci/kills.ts", {
      title: "Killed trainings",
      report: { schema: 1, adapter: sets[0].adapter, steps, every, rows, wrong },
      sections: () => [],
    });
  } finally {
    sets.forEach((set) => set.close());
    rmSync(root, { recursive: true, force: true });
  }
  console.log(wrong.length ? wrong.join("\n") : `All ${count} end as if nobody had killed them.`);
  return wrong.length;
}

const [what, ...given] = process.argv.slice(2);
if (what === "train") {
  const set = await openDevices(2);
  await trainIn(given[0], set, steps, ({ step }) => process.stdout.write(`step ${step}\n`));
  process.exit(0);
}
process.exit(await kills(Number(what ?? 20), given[0]) > 0 ? 1 : 0);
