/**
 * `deno task bench torch`: what schedules gain in PyTorch's pipeline runtime, beside what the simulator says they would, with
 * the times that PyTorch's own stages take. Two processes on the processor, gloo, one thread each; all schedules of a model
 * run in turn, PyTorch's own classes among them. Needs a Python with PyTorch 2.15 or later, and no GPU.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { clusterOf, fromTrace, median, quartiles } from "twobp/measure";
import { keptText, rangeText, type Table, tableText } from "twobp/report";
import {
  type Cluster,
  clusterCosts,
  generate,
  type Schedule,
  search,
  simulate,
  sizesOf,
  toCsv,
  twoStage,
  UserError,
  wholeBackward,
} from "twobp/schedules";
import * as flag from "../../lib/cli/flags.ts";
import { oneOf } from "../../lib/cli/options.ts";
import { openOutputs, type OutputPaths } from "../../lib/cli/outputs.ts";

const ranks = 2;

/** Sizes at which an action takes several milliseconds of a processor's core. */
const models = {
  mlp: { layers: 8, width: 512, samples: 128 },
  transformer: { layers: 4, width: 128, samples: 4, length: 128 },
} as const;

interface Options extends OutputPaths {
  python: string;
  model: keyof typeof models;
  repeats: number;
}

/** A schedule that runs, and the one that it is compared with. */
interface Contender {
  name: string;
  base?: string;
  schedule: Schedule;
}

/** What torch_schedules.py gives: by name the steps of each round in milliseconds, and in them the median of each stage's kinds. */
interface Times {
  torch: string;
  steps: Record<string, number[]>;
  inside: Record<string, Record<string, number>[]>;
}

/** By number of stages what F, I, W and B of each take, in milliseconds. */
type Costs = ReadonlyMap<number, Cluster>;

/** What a run gives. */
interface Measured {
  times: Times;
  /** Of the imported traces: what a user has. */
  traced: Costs;
  /** Of the clocks inside the stages. */
  inside: Costs;
}

/** The command; `bench/main.ts` adds it to the others. */
export const torch: Command = new Command("torch")
  .description(
    "Gain of schedules in PyTorch's pipeline runtime, measured and predicted. Needs PyTorch.",
  )
  .option("--python <path>", "a Python that has PyTorch", "python3")
  .option(
    "--model <name>",
    `model: ${Object.keys(models).join(", ")}`,
    oneOf(Object.keys(models)),
    "mlp",
  )
  .addOption(flag.repeats("rounds, each with a step of every schedule", 21))
  .addOption(flag.json())
  .addOption(flag.html())
  .addOption(flag.out())
  .action(run);

async function run(
  { python, model, repeats, ...paths }: Options,
): Promise<void> {
  const out = openOutputs(paths);
  const plain = bases();
  // The policies and the search are given what traces of a first and shorter run say.
  const usual = plain.filter(({ name }) => traced.includes(name)).flatMap((base) => [base, {
    name: splitName(base.name),
    schedule: base.name === joined ? generate("zb-v", { devices: ranks }) : twoStage(base.schedule),
  }]);
  const first = await measure(python, model, firstRounds, usual, {});
  const contenders = [...plain, ...await planned(plain, first.traced)];
  const { times, traced: known, inside } = await measure(python, model, repeats, contenders, ownClasses);
  const rows = contenders.flatMap((contender) => {
    const base = contenders.find(({ name }) => name === contender.base);
    return base ? [compared(contender, base, times, known, inside)] : [];
  });
  const own = Object.keys(ownClasses).map((name) => {
    const { like } = ownClasses[name];
    const ratios = times.steps[name].map((step, round) => step / times.steps[like][round]);
    return {
      name,
      like,
      step: median(times.steps[name]),
      ratio: median(ratios),
      quartiles: quartiles(ratios),
    };
  });
  const title = `${model} in PyTorch ${times.torch}, ${ranks} processes, ${repeats} rounds (real)`;
  const gains = gainTable(rows),
    stages = costTable(inside),
    classes = classTable(own);
  out.say(title);
  for (const table of [gains, classes, stages]) out.say(tableText(table));
  await out.results("bench", {
    title,
    report: {
      ...{
        schema: 1,
        model: { name: model, ...models[model] },
        ranks,
        rounds: repeats,
        torch: times.torch,
      },
      ...{
        traced: Object.fromEntries(known),
        inside: Object.fromEntries(inside),
        rows,
        own,
        steps: times.steps,
      },
      schedules: Object.fromEntries(
        contenders.map(({ name, schedule }) => [name, toCsv(schedule)]),
      ),
    },
    sections: () => [
      { heading: "Gain", table: gains },
      { heading: "PyTorch's own classes", table: classes },
      { heading: "What the stages take", table: stages },
    ],
  });
}

const joined = "zb-v joined";
const splitName = (name: string) => name === joined ? "zb-v" : `${name} fill`;
/** What is traced: of each number of stages one schedule without 2BP and one with. */
const traced = ["1f1b-2", "1f1b-2 fill", joined, "zb-v"];
/** Rounds of the run whose traces the policies and the search are given. */
const firstRounds = 10;
/** Steps in a round's trace, the warm-up included. */
const tracedSteps = 3;

/** Without 2BP. */
function bases(): Contender[] {
  const names = ["gpipe", "1f1b-1", "1f1b-2"];
  const plain = names.map((name) => ({
    name,
    schedule: generate(name, { devices: ranks }),
  }));
  return [...plain, {
    name: "zb-v joined",
    schedule: wholeBackward(generate("zb-v", { devices: ranks })),
  }];
}

/** What is made of them with known costs. */
async function planned(
  plain: readonly Contender[],
  known: Costs,
): Promise<Contender[]> {
  const made: Contender[] = [];
  for (const { name, schedule } of plain) {
    const { stages, microbatches } = sizesOf(schedule);
    if (name === joined) {
      made.push({
        name: splitName(name),
        base: name,
        schedule: generate("zb-v", { devices: ranks }),
      });
      continue;
    }
    const costs = clusterCosts(known.get(stages)!);
    made.push({
      name: splitName(name),
      base: name,
      schedule: twoStage(schedule, { policy: "fill", costs }),
    });
    made.push({
      name: `${name} select`,
      base: name,
      schedule: twoStage(schedule, { policy: "select", costs }),
    });
    if (name !== "1f1b-2") continue;
    const found = await search({ devices: ranks, microbatches, costs });
    made.push({
      name: `searched, ${microbatches} micro-batches`,
      base: name,
      schedule: found.schedule,
    });
  }
  return made;
}

interface OwnClass {
  class: string;
  microbatches: number;
  /** The file that has the same order. */
  like: string;
}

/** PyTorch's own. */
const ownClasses: Record<string, OwnClass> = {
  "PyTorch's GPipe": { class: "GPipe", microbatches: 2, like: "gpipe" },
  "PyTorch's 1F1B, 2": { class: "1F1B", microbatches: 2, like: "1f1b-1" },
  "PyTorch's 1F1B, 4": { class: "1F1B", microbatches: 4, like: "1f1b-2" },
  "PyTorch's ZBVZeroBubble": {
    class: "ZBVZeroBubble",
    microbatches: 4,
    like: splitName(joined),
  },
};

/** Runs all schedules, and PyTorch's own. */
async function measure(
  python: string,
  model: keyof typeof models,
  rounds: number,
  contenders: readonly Contender[],
  own: Record<string, OwnClass>,
): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), "twobp-torch-"));
  try {
    const schedules: Record<string, { path: string; microbatches: number }> = {};
    contenders.forEach(({ name, schedule }, index) => {
      const path = join(folder, `${index}.csv`);
      writeFileSync(path, toCsv(schedule, { for: "torch" }));
      schedules[name] = { path, microbatches: sizesOf(schedule).microbatches };
    });
    for (
      const [name, { class: kind, microbatches }] of Object.entries(own)
    ) {
      schedules[name] = { path: `own:${kind}`, microbatches };
    }
    const traces = Object.fromEntries(
      traced.map((name, index) => [name, join(folder, `traces${index}`)]),
    );
    for (const path of Object.values(traces)) mkdirSync(path);
    const config = join(folder, "config.json"),
      out = join(folder, "times.json");
    const sizes = {
      model,
      ...models[model],
      ranks,
      rounds,
      traced: tracedSteps,
    };
    writeFileSync(config, JSON.stringify({ ...sizes, schedules, traces, out }));
    const script = fileURLToPath(
      new URL("torch_schedules.py", import.meta.url),
    );
    try {
      execFileSync(python, [script, "times", config], {
        stdio: ["ignore", "ignore", "pipe"],
      });
    } catch (error) {
      const { code, signal, stderr } = error as { code?: string; signal?: string; stderr?: Uint8Array };
      const lines = new TextDecoder().decode(stderr ?? new Uint8Array()).trim().split("\n");
      // PyTorch writes other lines there too.
      const why = signal ?? (lines.findLast((line) => /error/i.test(line)) || lines.at(-1) || code);
      throw new UserError(`${python} cannot run the schedules: ${why}; --python names one that has PyTorch`);
    }
    const times: Times = JSON.parse(readFileSync(out, "utf8"));
    const read = async (name: string) => {
      const found: Cluster[] = [];
      for (let round = 0; round < rounds; round++) {
        const files = Array.from({ length: ranks }, (_, rank) => join(traces[name], `${round}-${rank}.json`));
        found.push(clusterOf(await fromTrace(files)));
      }
      return medianOf(found);
    };
    const [plain, split, plainV, splitV] = await Promise.all(traced.map(read));
    const known = [together(plain, split), together(plainV, splitV)];
    return {
      times,
      traced: new Map(known.map((each) => [each.stages.length, each])),
      inside: insideOf(contenders, times),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The median of each time over the traces of one schedule. */
function medianOf(all: readonly Cluster[]): Cluster {
  const of = (pick: (cluster: Cluster) => number | null | undefined) =>
    median(all.flatMap((cluster) => pick(cluster) ?? []));
  const [first] = all;
  const stages = first.stages.map((stage, at) =>
    Object.fromEntries(
      Object.keys(stage).map((kind) => [kind, of(({ stages }) => stages[at][kind as keyof typeof stage] as number)]),
    ) as unknown as Cluster["stages"][number]
  );
  return {
    ...first,
    stages,
    messages: first.messages?.map((message, at) => ({ ...message, time: of(({ messages }) => messages?.[at]?.time) })),
    hosts: first.hosts?.map((_, rank) => of(({ hosts }) => hosts?.[rank])),
    tails: first.tails?.map((_, rank) => of(({ tails }) => tails?.[rank])),
  };
}

/** One cluster of two: B of the run without 2BP, I and W of the one with. */
function together(plain: Cluster, split: Cluster): Cluster {
  const stages = split.stages.map((stage, at) => ({
    ...plain.stages[at],
    ...stage,
    f: plain.stages[at].f,
    b: plain.stages[at].b,
  }));
  return { ...plain, ...split, stages };
}

/** What each stage takes by the clocks inside: the median over rounds, and over all schedules with as many stages. */
function insideOf(contenders: readonly Contender[], { inside }: Times): Costs {
  const seen = new Map<number, Map<string, number[]>>();
  for (const { name, schedule } of contenders) {
    const { stages } = sizesOf(schedule);
    const times = seen.get(stages) ?? new Map<string, number[]>();
    seen.set(stages, times);
    for (const round of inside[name]) {
      for (const [key, time] of Object.entries(round)) {
        times.set(key, [...times.get(key) ?? [], time]);
      }
    }
  }
  return new Map([...seen].map(([stages, times]) => {
    const of = (stage: number, kind: string) => median(times.get(`${stage} ${kind}`)!);
    const list = Array.from({ length: stages }, (_, stage) => ({
      ...{
        f: of(stage, "f"),
        i: of(stage, "i"),
        w: of(stage, "w"),
        b: of(stage, "b"),
      },
    }));
    return [stages, { ranks, stages: list }];
  }));
}

interface Row {
  name: string;
  base: string;
  /** Step of the base over step with the schedule, by round. */
  measured: number;
  quartiles: readonly [number, number];
  /** With the times of the imported traces, and of the clocks inside the stages. */
  predicted: number;
  byClocks: number;
  /** Measured step over simulated step, of the base and of the schedule, by the traces. */
  unexplained: readonly [number, number];
}

function compared(
  contender: Contender,
  base: Contender,
  { steps }: Times,
  traced: Costs,
  inside: Costs,
): Row {
  const ratios = steps[base.name].map((step, round) => step / steps[contender.name][round]);
  const makespans = (costs: Costs) =>
    [base, contender].map(({ schedule }) =>
      simulate(schedule, clusterCosts(costs.get(sizesOf(schedule).stages)!))
        .makespan
    );
  const [before, after] = makespans(traced),
    [clocksBefore, clocksAfter] = makespans(inside);
  return {
    ...{ name: contender.name, base: base.name },
    ...{ measured: median(ratios), quartiles: quartiles(ratios) },
    ...{ predicted: before / after, byClocks: clocksBefore / clocksAfter },
    unexplained: [
      median(steps[base.name]) / before,
      median(steps[contender.name]) / after,
    ],
  };
}

function gainTable(rows: readonly Row[]): Table {
  return {
    columns: [
      "schedule",
      "over",
      "gain",
      "quartiles",
      "predicted",
      "off by",
      "by clocks",
      "step over simulated",
    ],
    rows: rows.map((
      { name, base, measured, quartiles, predicted, byClocks, unexplained },
    ) => [
      ...[
        name,
        base,
        measured.toFixed(3),
        rangeText(quartiles),
        predicted.toFixed(3),
      ],
      ...[(measured - predicted).toFixed(3), byClocks.toFixed(3)],
      unexplained.map((each) => each.toFixed(3)).join(" / "),
    ]),
    notes: [
      `Without +-: errors of predictions in PyTorch are not kept, and those of twobp (${keptText()}) are not its own. "off by" says ` +
      "how far each one was.",
    ],
  };
}

function classTable(
  rows: readonly {
    name: string;
    like: string;
    step: number;
    ratio: number;
    quartiles: readonly [number, number];
  }[],
): Table {
  return {
    columns: [
      "PyTorch's own class",
      "step, ms",
      "over the file",
      "its step over the file's",
      "quartiles",
    ],
    rows: rows.map((
      { name, like, step, ratio, quartiles },
    ) => [name, step.toFixed(1), like, ratio.toFixed(3), rangeText(quartiles)]),
  };
}

function costTable(costs: Costs): Table {
  return {
    columns: ["stage", "F, ms", "I", "W", "B", "I + W over B"],
    rows: [...costs].flatMap(([stages, { stages: list }]) =>
      list.map(({ f, i, w, b }, stage) => [
        `${stage} of ${stages}`,
        ...[f, i, w as number, b].map((each) => each!.toFixed(2)),
        ((i! + (w as number)) / b!).toFixed(3),
      ])
    ),
  };
}
