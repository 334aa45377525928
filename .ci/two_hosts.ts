/**
 * Two hosts on one machine: two network namespaces with names, addresses and a core of their own, joined by links of several
 * bandwidths and delays (`link.py`), and a pipeline of two ranks over them by Open MPI, whose ssh is `two_hosts.sh`. The gradients must
 * have the bits of one process; and the step times are set beside what the simulator says with the device times of the same steps
 * and a message of that size measured by ping-pong in between.
 * `deno run -A --no-check .ci/two_hosts.ts [rounds, 15 by default] [a file for the figures, as JSON]`. As root on Linux with two
 * cores, `ip`, Python, Open MPI and /dev/net/tun.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import process from "node:process";
import { fileURLToPath } from "node:url";
import {
  adamw,
  createModel,
  createPipeline,
  type DeviceSet,
  generate,
  openDevices,
  simulate,
  textSource,
  twoStage,
} from "twobp";
import { type Table, tableText } from "twobp/report";
import { openWorld, type ProcessSet } from "twobp/runtime";
import type { Costs } from "twobp/schedules";
import type { BatchSource } from "twobp/train";
import { openOutputs } from "../lib/cli/outputs.ts";
import { createCostCollector, simulatorCosts, updatesAfter } from "../lib/measure/costs.ts";
import { median, quartiles } from "../lib/measure/statistics.ts";
import { createTimer } from "../lib/gpu/timing.ts";
import { matmul } from "../lib/ops/matmul.ts";
import { empty, release } from "../lib/tensor.ts";

const links = [{ megabits: 1000, delayMs: 1 }, { megabits: 200, delayMs: 5 }, { megabits: 20, delayMs: 5 }];
const samples = 4, bytes = samples * 64 * 128 * 4; // of a message: llama-tiny's tokens and width
/** Rows and columns of the product that devices compute between messages, and about how long an action is. */
const side = 256, actionMs = 40;
const base = generate("1f1b-1", { devices: 2 }), schedules = [base, twoStage(base)];

const pipelineOn = (set: DeviceSet) =>
  createPipeline(set, createModel("llama-tiny"), { optimizer: adamw({ learningRate: 1e-3 }), seed: 1 });
const source = (): BatchSource =>
  textSource(new TextEncoder().encode("to be or not to be, that is the question. ".repeat(50)), {
    length: 64,
    seed: 1,
  });

/** A hash of the gradients that both schedules leave, the second after an update. */
async function gradientsOn(set: DeviceSet): Promise<string> {
  const pipeline = pipelineOn(set), data = source(), hash = createHash("sha256");
  for (const schedule of schedules) {
    await pipeline.step(schedule, await data.next(2 * samples));
    await pipeline.step(schedule, await data.next(2 * samples), { optimize: false });
    for (const [name, { buffer, byteOffset, byteLength }] of await pipeline.gradients()) {
      hash.update(name).update(new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  pipeline.close();
  return hash.digest("hex").slice(0, 16);
}

/**
 * Messages to the other host and back, from device to device. Before each the device that sends has computed for a while, as an action
 * does: the longer it has, the later its end is noticed.
 */
function pingPong({ world, devices: [device], process: own }: ProcessSet) {
  const [transport] = world.connect([device]), other = 1 - own, timer = createTimer(device)!;
  const [a, b, product] = [0, 0, 0].map(() => empty(device, [side, side], "workspace"));
  let id = 0;
  const record = (products: number) => {
    device.beginPass(timer.slot(0));
    for (let at = 0; at < products; at++) matmul(product, a, b);
  };
  return {
    /** How many products take so many milliseconds. */
    async productsIn(ms: number): Promise<number> {
      record(20);
      device.submit();
      const [{ start, end }] = await timer.read(1);
      return Math.max(1, Math.round(20 * ms / (end - start)));
    },
    /** The time from the end of what the one computes until the other has the message, one way. */
    async measure(bytes: number, products: number): Promise<number> {
      const tensor = empty(device, [bytes / 4], "transfer");
      const send = () => {
        record(products);
        const post = transport.send(other, id, tensor);
        device.submit();
        post();
      };
      await world.exchange!(undefined);
      const start = performance.now();
      if (own === 0) send();
      await transport.receive(other, id, tensor);
      if (own === 1) send();
      id++;
      const ms = performance.now() - start;
      const [busy] = await timer.read(1), mine = busy.end - busy.start;
      const all = await world.exchange!(mine) as readonly number[];
      release(tensor);
      return own === 0 ? (ms - all[0] - all[1]) / 2 : 0; // the other had nothing to do at first
    },
    close() {
      transport.close();
      timer.close();
      release(a, b, product);
    },
  };
}

/** What a link has been found to do. */
interface Figures {
  readonly gradients: string;
  readonly library: string;
  readonly adapter: string;
  /** Messages of an activation and of 4 bytes, one way. */
  readonly messageMs: readonly number[];
  readonly recordMs: readonly number[];
  /** By schedule: the steps as they took, and as they are on paper. */
  readonly stepMs: readonly (readonly number[])[];
  readonly simulatedMs: readonly number[];
}

/** A process's part of the measurement: steps of both schedules and messages in turn, over a link of so many Mbit/s. */
async function measure(rounds: number, megabits: number): Promise<void> {
  const set = await openWorld(), gradients = await gradientsOn(set);
  const pipeline = pipelineOn(set), data = source(), ping = pingPong(set);
  const collector = createCostCollector(pipeline.parts.length, 2, updatesAfter(pipeline, 2));
  const messageMs: number[] = [], recordMs: number[] = [], stepMs: number[][] = schedules.map(() => []);
  const products = await ping.productsIn(actionMs);
  for (let round = 0; round <= rounds; round++) {
    for (const [at, schedule] of schedules.entries()) {
      const batch = await data.next(2 * samples);
      await set.world.exchange!(undefined);
      const { intervals, wallMs } = await pipeline.step(schedule, batch);
      const message = await ping.measure(bytes, products), record = await ping.measure(4, 1);
      if (round === 0) continue; // kernels are compiled, buffers made, connections opened
      collector.add(schedule, intervals!);
      stepMs[at].push(wallMs);
      messageMs.push(message);
      recordMs.push(record);
    }
  }
  const transfer = median(messageMs), line = bytes * 8 / megabits / 1000;
  const costs: Costs = {
    ...simulatorCosts(collector.costs(), { transfer: () => transfer }),
    line: (from, to) => from === to ? 0 : line,
    agreement: median(recordMs),
  };
  const simulatedMs = schedules.map((schedule) => simulate(schedule, costs).makespan);
  const { library, adapter } = set;
  const figures: Figures = { gradients, library, adapter, messageMs, recordMs, stepMs, simulatedMs };
  if (set.process === 0) process.stdout.write(`figures ${JSON.stringify(figures)}\n`);
  await set.world.exchange!(undefined); // nothing is under way any more
  ping.close();
  pipeline.close();
  set.close();
}

const hosts = ["one", "other"], addressOf = (at: number) => `10.77.0.${at + 1}`;
const ip = (...given: string[]) => execFileSync("ip", given, { stdio: ["ignore", "pipe", "pipe"] });
const fileOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Makes the hosts and the link between them. */
async function joinHosts({ megabits, delayMs }: typeof links[number]): Promise<ChildProcess> {
  for (const host of hosts) {
    const name = `twobp-${host}`;
    ip("netns", "add", name);
    ip("-n", name, "link", "set", "lo", "up");
    mkdirSync(`/etc/netns/${name}`, { recursive: true });
    writeFileSync(
      `/etc/netns/${name}/hosts`,
      ["127.0.0.1 localhost", ...hosts.map((each, at) => `${addressOf(at)} ${each}`), ""].join("\n"),
    );
    // A pause does not count as a line that was lost.
    const settings = ["net.ipv4.tcp_slow_start_after_idle=0", "net.ipv4.tcp_congestion_control=reno"];
    ip("netns", "exec", name, "sysctl", "-q", "-w", ...settings);
  }
  const ends = hosts.flatMap((host, at) => [`twobp-${host}`, addressOf(at)]);
  const link = spawn("python3", [fileOf("link.py"), `${megabits}`, `${delayMs}`, ...ends], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await new Promise((resolve, reject) => {
    link.stdout!.once("data", resolve);
    link.once("error", reject).once("close", () => reject(new Error("link.py has ended")));
  });
  return link;
}

function removeHosts(): void {
  for (const host of hosts) {
    try {
      ip("netns", "del", `twobp-${host}`);
    } catch {
      // it has not been made
    }
    rmSync(`/etc/netns/twobp-${host}`, { recursive: true, force: true });
  }
}

async function over(link: typeof links[number], rounds: number): Promise<Figures> {
  removeHosts();
  const joined = await joinHosts(link);
  try {
    const runtime = process.versions.deno ? ["run", "-A", "--no-check"] : ["--import", "tsx"];
    const set = (name: string, value: string) => ["--mca", name, value];
    const mpirun = ["mpirun", "--allow-run-as-root", "--host", hosts.join(), "-n", "2", "--bind-to", "none"];
    const ways = ["btl_tcp_if_include", "oob_tcp_if_include"].flatMap((name) => set(name, "10.77.0.0/24"));
    const own = [process.execPath, ...runtime, fileURLToPath(import.meta.url), "rank", `${rounds}`, `${link.megabits}`];
    const command = [
      ...mpirun,
      ...set("plm_rsh_agent", fileOf("two_hosts.sh")),
      ...set("btl", "self,tcp"),
      ...ways,
      ...own,
    ];
    const said = await new Promise<string>((resolve, reject) => {
      const child = spawn(fileOf("two_hosts.sh"), ["one", ...command], { stdio: ["ignore", "pipe", "inherit"] });
      let text = "";
      child.stdout.on("data", (chunk) => text += chunk);
      child.once("error", reject).once(
        "close",
        (code) => code === 0 ? resolve(text) : reject(new Error(`mpirun: ${code}`)),
      );
    });
    return JSON.parse(/^figures (.*)$/m.exec(said)![1]);
  } finally {
    const ended = new Promise((resolve) => joined.once("close", resolve));
    joined.stdin!.end();
    await ended;
    removeHosts();
  }
}

interface Row extends Figures {
  readonly megabits: number;
  readonly delayMs: number;
  readonly same: boolean;
}

function tableOf(rows: readonly Row[]): Table {
  const text = (values: readonly number[]) => {
    const [low, high] = quartiles(values);
    return `${median(values).toFixed(1)} (${low.toFixed(1)} to ${high.toFixed(1)})`;
  };
  return {
    columns: ["Mbit/s, ms", "2BP", "message, ms", "record, ms", "step, ms", "simulated, ms", "simulated over step"],
    rows: rows.flatMap(({ megabits, delayMs, messageMs, recordMs, stepMs, simulatedMs }) =>
      stepMs.map((each, at) => [
        ...[`${megabits}, ${delayMs}`, at ? "yes" : "no", text(messageMs), text(recordMs), text(each)],
        ...[simulatedMs[at].toFixed(1), (simulatedMs[at] / median(each)).toFixed(3)],
      ])
    ),
  };
}

async function run(rounds: number, json?: string): Promise<number> {
  const out = openOutputs(json === undefined ? {} : { json });
  const set = await openDevices(2, { virtual: false }), expected = await gradientsOn(set);
  set.close();
  const rows: Row[] = [];
  for (const link of links) {
    const figures = await over(link, rounds);
    rows.push({ ...link, same: figures.gradients === expected, ...figures });
  }
  out.say(tableText(tableOf(rows)));
  const load = loadavg()[0], wrong = rows.filter(({ same }) => !same);
  await out.results(".ci/two_hosts.ts", {
    title: "Two hosts",
    report: { schema: 1, model: "llama-tiny", schedule: base.name, samples, bytes, rounds, load, rows },
    sections: () => [],
  });
  console.log(wrong.length ? "Gradients differ from those of one process." : "Gradients have the bits of one process.");
  return wrong.length;
}

const [what = "15", given, megabits] = process.argv.slice(2);
if (what === "rank") {
  await measure(Number(given), Number(megabits));
  process.exit(0);
}
process.exit(await run(Number(what), given) > 0 ? 1 : 0);
