/** What follows from a state: two schedules, when their actions run, what they take, or why they do not run. */
import { UserError } from "../errors.ts";
import { type Priced, priceOf } from "../report/schedule.ts";
import { sizesOf } from "../schedules/check/sizes.ts";
import { generate } from "../schedules/generators/generate.ts";
import { zoo } from "../schedules/generators/zoo.ts";
import { type Costs, durationOf } from "../schedules/price/costs.ts";
import type { Memory } from "../schedules/price/memory.ts";
import { memoryTimeline, type RankMemory } from "../schedules/price/memory_timeline.ts";
import { type Times, timesOf } from "../schedules/price/simulate.ts";
import { lowerAsFar, type Program } from "../schedules/program.ts";
import type { Action, Schedule } from "../schedules/schedule.ts";
import type { Policy } from "../schedules/transforms/policy.ts";
import { recomputeAhead } from "../schedules/transforms/recompute_ahead.ts";
import { pairOf } from "../schedules/transforms/pair.ts";
import { rangesOf, splitStages } from "../schedules/transforms/split_stages.ts";
import { type Lists, placementOf } from "./lists.ts";
import { costsOf, memoryOf } from "./pricing.ts";
import { read, type Settings } from "./settings.ts";
import type { State, Variant } from "./state.ts";

/** An action where it is drawn. */
export interface Bar {
  readonly rank: number;
  /** Place in the rank's list. */
  readonly index: number;
  readonly action: Action;
  readonly start: number;
  readonly end: number;
  /** Whether it runs, is what its rank hangs at, or comes after that and is drawn in its order alone. */
  readonly state: "runs" | "stuck" | "never";
  readonly critical: boolean;
}

/** Who waits for whom, and when what runs does. */
export interface Known {
  readonly program: Program;
  readonly times: Times;
  /** Of each rank the node at which it hangs; its end where it does not. */
  readonly next: ArrayLike<number>;
}

/** One of the two schedules. */
export interface Part {
  readonly variant: Variant;
  readonly schedule: Schedule;
  /** Whether its lists were changed by hand. */
  readonly edited: boolean;
  /** By rank, in the order of its list. */
  readonly bars: readonly (readonly Bar[])[];
  /** When the last bar ends. */
  readonly until: number;
  readonly costs: Costs;
  /** Absent where an action stands before what it needs of its own rank, so that nobody knows who waits for whom. */
  readonly known?: Known;
  /** Absent where it does not run to its end. */
  readonly priced?: Priced & { readonly memory: readonly RankMemory[] };
  /** What the validator says of it. */
  readonly fault?: string;
}

/** What the page shows of a state. */
export interface Outcome {
  readonly settings: Settings;
  /** Whether the schedule is split by itself, so that no policy applies. */
  readonly isSplit: boolean;
  readonly base: Part;
  readonly split: Part;
  /** Step time without 2BP over that with it, where both run. */
  readonly gain?: number;
}

/** So many bars can be drawn, and zoomed, in good time; and with so many `lean` gives an answer in seconds. */
const mostActions = 8192, mostForLean = 3072;

/**
 * Makes the two schedules of a state and prices them.
 *
 * @throws {UserError} For fields that are wrong; a schedule that was made wrong by hand is no error, but has its `fault`.
 */
export function outcomeOf({ values, given, edits }: State): Outcome {
  const settings = read(values), { policy, width } = settings;
  const source = given ? givenOf(given.name, given.lists, policy.kind) : generated(settings);
  const ranks = source.actions.length, stages = source.placement.length;
  const { ranges } = settings;
  if (stages % ranges > 0) {
    throw new UserError(
      `Ranges a stage is ${ranges}, and ${source.name} has ${stages} stages, which no such ranges make`,
    );
  }
  const costs = costsOf(settings, stages, ranks, ranges), memory = memoryOf(settings, stages, ranges);
  const pair = pairOf(source, { policy, width, costs, memory });
  const part = (variant: Variant): Part => {
    const lists = edits[variant];
    return partOf(variant, lists ? editedOf(pair[variant], lists) : pair[variant], lists !== undefined, costs, memory);
  };
  const base = part("base"), split = part("split");
  const [without, with2BP] = [base, split].map(({ priced }) => priced?.simulation.makespan);
  const isSplit = sizesOf(source).split;
  return { settings, isSplit, base, split, ...without !== undefined && with2BP && { gain: without / with2BP } };
}

function generated(settings: Settings): Schedule {
  const { schedule: name, devices, chunks: asked } = settings, entry = zoo.find((each) => each.name === name)!;
  const { microbatches = entry.microbatches(devices) } = settings;
  const chunks = asked ?? entry.chunks;
  expectFew((settings.r ? 4 : 3) * devices * chunks * microbatches * settings.ranges, settings.policy.kind);
  const made = splitStages(
    generate(name, { devices, microbatches, ...entry.isChunked && { chunks } }),
    settings.ranges,
  );
  return settings.r ? recomputeAhead(made) : made;
}

function givenOf(name: string, lists: Lists, policy: Policy["kind"]): Schedule {
  expectFew(lists.reduce((sum, list) => sum + list.length, 0), policy);
  return { name, placement: placementOf(lists), actions: lists };
}

/** An edit moves actions: lists with others, as a link may bring them, would be priced with costs of another schedule. */
function editedOf(schedule: Schedule, lists: Lists): Schedule {
  const stages = placementOf(lists).length;
  if (lists.length !== schedule.actions.length || stages !== schedule.placement.length) {
    throw new UserError(
      `The edit is one of ${stages} stages on ${lists.length} ranks, and ${schedule.name} has ${schedule.placement.length} ` +
        `on ${schedule.actions.length}`,
    );
  }
  const { policy: _, slower: __, ...rest } = schedule; // nobody's any more
  return { ...rest, actions: lists };
}

function expectFew(actions: number, policy: Policy["kind"]): void {
  if (actions > mostActions) {
    throw new UserError(
      `These are some ${actions} actions; at most ${mostActions} are drawn: take fewer micro-batches`,
    );
  }
  if (policy !== "lean" || actions <= mostForLean) return;
  throw new UserError(
    `The policy lean takes too long here for some ${actions} actions; it can have ${mostForLean}: take fewer micro-batches, or ` +
      "schedule simulate on the command line",
  );
}

function partOf(variant: Variant, schedule: Schedule, edited: boolean, costs: Costs, memory: Memory): Part {
  const about = { variant, schedule, edited, costs };
  let known: Known | undefined, fault: string | undefined;
  try {
    const { program, next, deadlock } = lowerAsFar(schedule);
    known = { program, next, times: timesOf(program, costs) };
    fault = deadlock;
  } catch (error) {
    if (!(error instanceof UserError) || !edited) throw error;
    fault = error.message;
  }
  if (!known || fault !== undefined) {
    const bars = barsAsFar(schedule, costs, known);
    return { ...about, bars, until: Math.max(0, ...bars.map((row) => row.at(-1)?.end ?? 0)), known, fault };
  }
  const priced = priceOf(schedule, costs, memory), { simulation } = priced;
  const critical = new Set(simulation.criticalPath);
  const bars: Bar[][] = schedule.actions.map(() => []);
  for (const span of simulation.spans) {
    const { rank, index, action, start, end } = span;
    bars[rank].push({ rank, index, action, start, end, state: "runs", critical: critical.has(span) });
  }
  const timeline = memoryTimeline(schedule, simulation.spans, memory);
  return { ...about, bars, until: simulation.makespan, known, priced: { ...priced, memory: timeline } };
}

/** What runs at its times, and behind it, in the order of the lists, what does not. */
function barsAsFar({ actions }: Schedule, costs: Costs, known: Known | undefined): Bar[][] {
  const over = known?.times.makespan ?? 0;
  return actions.map((list, rank) => {
    let at = over;
    return list.map((action, index): Bar => {
      const about = { rank, index, action, critical: false };
      const node = known ? known.program.first[rank] + index : 0;
      if (known && node < known.next[rank]) {
        return { ...about, start: known.times.starts[node], end: known.times.ends[node], state: "runs" };
      }
      const start = at;
      at += durationOf(costs, action, rank, index);
      return { ...about, start, end: at, state: known && node === known.next[rank] ? "stuck" : "never" };
    });
  });
}

/** The name of a part: `1f1b-1 without 2BP`. */
export function titleOf({ variant, schedule, edited }: Pick<Part, "variant" | "schedule" | "edited">): string {
  const { policy, name } = schedule, { width } = sizesOf(schedule);
  const how = variant === "base" ? "without 2BP" : policy ? `with 2BP, ${policy}` : "split";
  const ranges = rangesOf(schedule.placement);
  const more = [width > 1 && `width ${width}`, ranges > 1 && `${ranges} ranges a stage`, edited && "edited"];
  return [`${name} ${how}`, ...more].filter(Boolean).join(", ");
}
