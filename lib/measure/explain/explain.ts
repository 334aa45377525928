/** A traced step, explained: where it goes, what the simulator makes of it, and what else would be faster. */
import { UserError } from "../../errors.ts";
import { expectFields, expectValue, listOf, optional, positive, real, type Rules, whole } from "../../rules.ts";
import { generator } from "../../random.ts";
import { type Costs, endOf } from "../../schedules/price/costs.ts";
import { simulate, type Simulation, timesOf } from "../../schedules/price/simulate.ts";
import { lower, type Program } from "../../schedules/program.ts";
import type { Schedule } from "../../schedules/schedule.ts";
import { sizesOf } from "../../schedules/check/sizes.ts";
import { search } from "../../schedules/search/search.ts";
import { fewest, shareBeyond } from "../bootstrap.ts";
import { type ActionTimes, type Profile, profileRule, type StageProfile } from "../profile/profile.ts";
import { median } from "../statistics.ts";
import { accountsOf, type StepAccount } from "./account.ts";
import { activationsOf, candidatesFor } from "./alternatives.ts";
import { assumedB, costsOfProfile, missingTimes, type Pick, stagesWith } from "./profile_costs.ts";

/** What to explain, and what else to try. */
export interface ExplainOptions {
  /** Profiles of the same stages that have times that this one lacks: of a plain step, which shows B, or of one with 2BP, which shows I and W. */
  also?: readonly Profile[];
  /** Leave out schedules with which a rank holds more activations, of a micro-batch on a stage, than so many; no limit when absent. */
  cap?: number;
  /** Candidates that the search of an order looks at; default 20,000, 0 for no search. It needs one stage a rank. */
  budget?: number;
  /** Resamples for the intervals; default 400. */
  resamples?: number;
  /** How many layers each stage has: then other partitions are tried, a layer taking its share of the stage. */
  layers?: readonly number[];
}

/** What another way to run the step would bring. */
export interface Alternative {
  /** What is other: the order and kinds of actions, or where the model is cut. */
  readonly kind: "schedule" | "search" | "partition";
  /** What would run. */
  readonly schedule: Schedule;
  /** What it is called: a schedule's name, or the partition. */
  readonly name: string;
  /** Simulated length of the step, in milliseconds. */
  readonly makespan: number;
  /** Simulated length of the step that ran over this one's: above 1 is faster. */
  readonly gain: number;
  /** 95 % of the gains when costs are drawn anew from what was seen; absent for a single sample of each. */
  readonly interval?: readonly [number, number];
  /** That interval, or the gain alone, widened by how far the simulator misses the step that ran. */
  readonly range: readonly [number, number];
  /** The most activations, of a micro-batch on a stage, that a rank holds. */
  readonly activations: number;
}

/** A traced step, explained. */
export interface Explanation {
  /** What ran. */
  readonly schedule: Schedule;
  /** Where every traced step goes. */
  readonly steps: readonly StepAccount[];
  /** Index of the step whose length is the median (of an even number the lower of the two): tables and drawings show it. */
  readonly typical: number;
  /** Median length of the traced steps, in milliseconds. */
  readonly measured: number;
  /** The schedule that ran, simulated with the medians of its own costs. */
  readonly simulation: Simulation;
  /** How far the simulated length is from the measured one, as a share of that: 0.02 is 2 % too long. */
  readonly error: number;
  /** By rank what the host takes between actions in that simulation; its actions have it at their beginnings. */
  readonly hosts: readonly number[];
  /** The most activations, of a micro-batch on a stage, that a rank holds with the schedule that ran. */
  readonly activations: number;
  /** What else could run, fastest first; of two that are as fast, the one that holds fewer activations. */
  readonly alternatives: readonly Alternative[];
  /** The fastest schedule for the stages as they are; the one that ran where none is faster. */
  readonly best: Schedule;
  /** What must be read with it, in sentences. */
  readonly notes: readonly string[];
}

const rules: Rules<ExplainOptions> = {
  also: optional({
    right: "a list of profiles, as fromTrace() returns",
    accepts: (value) => Array.isArray(value) && value.every(profileRule.accepts),
  }),
  cap: optional(real({ least: "above 0" })),
  budget: optional(whole(0, 1e9)),
  resamples: optional(positive),
  layers: optional(listOf(positive)),
};

/**
 * Explains a profile of a traced run: rank by rank where its steps go, with the reasons of every wait; the step simulated with its own
 * costs, to be laid beside the traced one; and what 2BP with each policy, the other schedules of the same placement, a searched order
 * and another partition would bring with these costs.
 *
 * Gains compare simulations with one another. Their intervals are a bootstrap: the steps' costs are drawn anew with replacement, whole
 * steps where there are 6 of them, else single actions, and all schedules are priced with each draw. `range` adds the share by which
 * the simulation of the schedule that ran misses its traced length.
 *
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { explainProfile, fromTrace } from "twobp/measure";
 * import { chromeTrace } from "twobp/report";
 * import { stageCosts } from "twobp/schedules";
 *
 * const schedule = generate("1f1b-1", { devices: 2 });
 * const text = chromeTrace(schedule, simulate(schedule, stageCosts([{ f: 1, i: 1, w: 1 }, { f: 1, i: 2, w: 1 }])));
 * const { steps: [{ length, ranks }] } = await explainProfile(await fromTrace([{ name: "mine", text }]));
 * const { compute, waits } = ranks[0];
 * console.log(length, compute.F + compute.B, waits[0].time, waits[0].causes[0].action.kind); // 11 6 3 B
 * ```
 *
 * @throws {UserError} For a profile without steps, other profiles of other stages, layers that are not one number a stage.
 */
export async function explainProfile(profile: Profile, options: ExplainOptions = {}): Promise<Explanation> {
  expectValue("explainProfile: the profile", profile, profileRule);
  expectFields("explainProfile", options, rules);
  const { also = [], cap = Infinity, budget = 20_000, resamples = 400, layers } = options;
  const { schedule, steps } = profile;
  if (!schedule || steps.length === 0) {
    throw new UserError("These times are of no steps: what is to be explained is a trace of some");
  }
  const { stages: count, microbatches, devices } = sizesOf(schedule);
  if (layers && layers.length !== count) {
    throw new UserError(`The layers are one number for each stage: ${count}, and not ${layers.length}`);
  }
  const stages = stagesWith(profile, also), accounts = accountsOf(profile, schedule);
  const known = (other: Schedule) => missingTimes(other, stages) === undefined;
  const costs = costsOfProfile(profile, stages);
  const simulation = simulate(schedule, costs);
  const measured = median(steps.map(({ length }) => length));
  const error = simulation.makespan / measured - 1;

  const tried: Tried[] = candidatesFor(schedule, (other) => known(other) ? costs : undefined, cap)
    .map(({ schedule, activations }) => ({ kind: "schedule", schedule, name: nameOf(schedule), activations }));
  const isLinear = count === devices && schedule.placement.every((rank, stage) => rank === stage);
  const searched = budget > 0 && isLinear && known(allKinds(schedule))
    ? await searchedOrder(devices, microbatches, costs, cap, budget)
    : undefined;
  if (searched && !tried.some(({ schedule: { actions } }) => sameOrder(actions, searched.actions))) {
    tried.push({ kind: "search", schedule: searched, name: "searched order", activations: activationsOf(searched) });
  }
  if (count > 1) tried.push(...partitions(schedule, profile, stages, layers));

  const priced = price(profile, stages, schedule, tried, resamples);
  const alternatives = priced.map((each) => ({ ...each, range: widened(each, Math.abs(error)) }))
    .sort((a, b) => rounded(b.gain) - rounded(a.gain) || a.activations - b.activations);
  const faster = alternatives.find(({ kind, gain }) => kind !== "partition" && gain > 1 + 1e-9);
  const order = steps.map(({ length }, at) => ({ length, at })).sort((a, b) => a.length - b.length);
  return {
    schedule,
    steps: accounts,
    typical: order[order.length - 1 >> 1].at,
    measured,
    simulation,
    error,
    hosts: profile.hosts.map((times) => times?.median ?? 0),
    activations: activationsOf(schedule),
    alternatives,
    best: faster?.schedule ?? schedule,
    notes: notesOf(profile, stages, schedule, tried, steps.length),
  };
}

/** So far that what is equal but for rounding is equal. */
const rounded = (gain: number) => Math.round(gain * 1e9);

/** Something to price. */
interface Tried {
  readonly kind: Alternative["kind"];
  readonly schedule: Schedule;
  readonly name: string;
  readonly activations: number;
  /** By stage a factor for its times. */
  readonly scale?: readonly number[];
}

function nameOf({ name, policy, actions }: Schedule): string {
  if (policy) return `${name}, 2BP ${policy}`;
  const isWhole = actions.every((list) => list.every(({ kind }) => kind === "F" || kind === "B"));
  return isWhole ? `${name}, no 2BP` : name;
}

/** Of a schedule an F, an I and a W on each stage (listed by stage, not by rank), to be asked about. */
function allKinds(schedule: Schedule): Schedule {
  const actions = schedule.placement.map((_, stage) =>
    (["F", "I", "W"] as const).map((kind) => ({ kind, stage, microbatches: [0] }))
  );
  return { ...schedule, actions };
}

function sameOrder(a: Schedule["actions"], b: Schedule["actions"]): boolean {
  const text = (actions: Schedule["actions"]) => actions.map((list) => list.map(({ kind }) => kind).join("")).join();
  return text(a) === text(b);
}

async function searchedOrder(devices: number, microbatches: number, costs: Costs, cap: number, budget: number) {
  const memory = () => ({ activations: 1, released: 0, derivatives: 0 });
  const limit = Number.isFinite(cap) ? { cap, memory } : {};
  try {
    return (await search({ devices, microbatches, costs, budget, ...limit })).schedule;
  } catch (error) {
    if (error instanceof UserError) return undefined; // nothing fits under the cap
    throw error;
  }
}

/** The schedule that ran with its work cut otherwise: evenly, which may need parts of layers, or by whole layers. */
function partitions(
  schedule: Schedule,
  profile: Profile,
  stages: readonly StageProfile[],
  layers: readonly number[] | undefined,
): Tried[] {
  const activations = activationsOf(schedule), program = lower(schedule);
  const row = (name: string, scale: readonly number[]): Tried => ({
    kind: "partition",
    schedule,
    name,
    scale,
    activations,
  });
  const costs = costsOfProfile(profile, stages), hosts = profile.hosts;
  const work = new Array<number>(stages.length).fill(0);
  schedule.actions.forEach((list, rank) =>
    list.forEach((action, index) => {
      work[action.stage] += costs.duration(action, rank, index) - (hosts[rank]?.median ?? 0);
    })
  );
  if (!layers) {
    const mean = work.reduce((sum, time) => sum + time, 0) / work.length;
    return work.some((time) => time === 0) ? [] : [row("work divided evenly", work.map((time) => mean / time))];
  }
  const best = [...layers];
  const scaleOf = (counts: readonly number[]) => counts.map((count, stage) => count / layers[stage]);
  const lengthOf = (counts: readonly number[]) => {
    const scaled = costsOfProfile(profile, stages, undefined, scaleOf(counts));
    return timesOf(program, scaled).makespan;
  };
  // A layer at a time to where the step becomes shortest, until nothing helps.
  for (let now = lengthOf(best);;) {
    let move: { from: number; to: number } | undefined, shortest = now * (1 - 1e-9);
    for (let from = 0; from < best.length; from++) {
      for (let to = 0; to < best.length && best[from] > 1; to++) {
        if (to === from) continue;
        const length = lengthOf(best.map((count, at) => count - Number(at === from) + Number(at === to)));
        if (length < shortest) [move, shortest] = [{ from, to }, length];
      }
    }
    if (!move) break;
    best[move.from]--;
    best[move.to]++;
    now = shortest;
  }
  const isOther = best.some((count, stage) => count !== layers[stage]);
  return isOther ? [row(`layers ${best.join(" + ")}`, scaleOf(best))] : [];
}

/** More actions than this in all draws together take too long; then there are fewer draws. */
const mostPriced = 40e6;

/** Prices everything with the medians, and with medians of draws for the intervals. */
function price(
  profile: Profile,
  stages: readonly StageProfile[],
  ran: Schedule,
  tried: readonly Tried[],
  resamples: number,
): Omit<Alternative, "range">[] {
  const programs: Program[] = [ran, ...tried.map(({ schedule }) => schedule)].map((each) =>
    lower(each, endOf(costsOfProfile(profile, stages), each))
  );
  const lengths = (pick?: Pick) =>
    programs.map((program, at) =>
      timesOf(program, costsOfProfile(profile, stages, pick, at > 0 ? tried[at - 1].scale : undefined)).makespan
    );
  const [own, ...others] = lengths();
  const actions = programs.reduce((sum, { nodes }) => sum + nodes, 0);
  const draws = Math.min(resamples, Math.floor(mostPriced / actions));
  const random = generator("explain"), steps = profile.steps.length;
  const isVaried = stages.some(({ f }) => f && f.samples.length > 1);
  const gains: number[][] = tried.map(() => []);
  for (let draw = 0; isVaried && draws >= 40 && draw < draws; draw++) {
    const drawn = Array.from({ length: steps }, () => random.integer(steps));
    const memo = new Map<ActionTimes, number>();
    const pick: Pick = (times) => {
      let value = memo.get(times);
      if (value === undefined) memo.set(times, value = drawnMedian(times, drawn, random.integer));
      return value;
    };
    const [base, ...rest] = lengths(pick);
    rest.forEach((length, at) => gains[at].push(base / length));
  }
  const share = steps >= fewest ? shareBeyond(steps) : 0.025;
  return tried.map(({ scale: _, ...each }, at) => {
    const sorted = gains[at].sort((a, b) => a - b), beyond = Math.floor(share * sorted.length);
    const interval = sorted.length > 0
      ? { interval: [sorted[beyond], sorted[sorted.length - 1 - beyond]] as const }
      : {};
    return { ...each, makespan: others[at], gain: own / others[at], ...interval };
  });
}

/** The median of samples drawn with replacement: those of the drawn steps where there are enough steps and each has as many, or any. */
function drawnMedian({ samples }: ActionTimes, drawn: readonly number[], integer: (below: number) => number): number {
  const each = samples.length / drawn.length;
  if (drawn.length >= fewest && Number.isInteger(each)) {
    return median(drawn.flatMap((step) => samples.slice(step * each, (step + 1) * each)));
  }
  return median(samples.map(() => samples[integer(samples.length)]));
}

function widened({ gain, interval }: Omit<Alternative, "range">, error: number): readonly [number, number] {
  const [low, high] = interval ?? [gain, gain];
  return [Math.min(low, gain) * (1 - error), Math.max(high, gain) * (1 + error)];
}

function notesOf(
  profile: Profile,
  stages: readonly StageProfile[],
  ran: Schedule,
  tried: readonly Tried[],
  steps: number,
): string[] {
  const notes = [...profile.notes];
  const lacks = missingTimes(allKinds(ran), stages);
  if (lacks) {
    notes.push(
      `There are no times of ${lacks}, so no schedules with 2BP here: trace some steps with 2BP, and give them as well.`,
    );
  }
  if ([ran, ...tried.map(({ schedule }) => schedule)].some((each) => assumedB(each, stages))) {
    notes.push(
      "There are no times of B on every stage: it is taken for I and W together, and may take less; give a trace without 2BP too.",
    );
  }
  if (steps < fewest) {
    notes.push(
      `Of ${steps} ${
        steps === 1 ? "step" : "steps"
      } the intervals are rough: ${fewest} are enough to draw whole steps.`,
    );
  }
  return notes;
}
