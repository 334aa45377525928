/** A cluster file: what stages, messages and ends of steps took somewhere, as JSON, and the costs that come of it. */
import { UserError } from "../../errors.ts";
import { described } from "../../rules.ts";
import type { Action, Kind } from "../schedule.ts";
import type { Costs } from "./costs.ts";
import type { ReplicaOptions } from "./replicas.ts";
import { weightTime } from "./weight_time.ts";

/** What the actions of a stage take, in milliseconds; a kind that is not known is absent. */
export interface ClusterStage {
  /** Forward. */
  readonly f?: number;
  /** Input gradient. */
  readonly i?: number;
  /** Weight gradient: of one micro-batch, or by how many are concatenated. */
  readonly w?: number | Readonly<Record<number, number>>;
  /** Full backward; where it is absent, i and w. */
  readonly b?: number;
  /** What of i and of b recomputes, which an R may run ahead of them; nothing where it is absent. */
  readonly r?: number;
}

/** Times of a cluster, in milliseconds. */
export interface Cluster {
  /** Number of ranks. */
  readonly ranks: number;
  /** What each stage takes. */
  readonly stages: readonly ClusterStage[];
  /** What a message takes from rank to rank: an activation (`F`), a gradient (`I`), or either where that is left out. */
  readonly messages?: readonly {
    readonly from: number;
    readonly to: number;
    readonly what?: "F" | "I";
    readonly time: number;
  }[];
  /** What a message takes between ranks that `messages` does not have; 0 by default. */
  readonly comm?: number;
  /** By rank what its host takes for each action; 0 by default. */
  readonly hosts?: readonly (number | null)[];
  /** By rank what it takes after its last action; 0 by default. */
  readonly tails?: readonly (number | null)[];
  /** Links between devices of one host, and of different hosts, which are the same by default: for sums over replicas. */
  readonly links?: { readonly inside: ClusterLink; readonly between?: ClusterLink };
  /** Bytes that go over them: of each stage's gradients, and of a message, in place of the times of messages. */
  readonly bytes?: { readonly gradients: number | readonly number[]; readonly message?: number };
}

/** A link of a cluster. */
export interface ClusterLink {
  /** Milliseconds until the first byte arrives. */
  readonly latency: number;
  /** Gigabytes (1e9) in a second. */
  readonly bandwidth: number;
}

/** What else `schedule import --json` writes. */
const passedOver = [
  "source",
  "steps",
  "lengths",
  "schedule",
  "placement",
  "actions",
  "clocks",
  "dropped",
  "notes",
  "command",
  "machine",
];
const fields = ["schema", "ranks", "stages", "messages", "comm", "hosts", "tails", "links", "bytes"];

/**
 * Checks the contents of a cluster file: `{ schema: 1, ranks, stages: [{ f, i, w, b, r }], messages, comm, hosts, tails, links, bytes }`, all
 * times in milliseconds, as `deno task schedule import --json` writes it, or written by hand.
 *
 * @throws {UserError} Says which field is wrong, and what would be right.
 */
export function readCluster(value: unknown): Cluster {
  const file = objectOf("A cluster file", value, [...fields, ...passedOver]);
  if (file.schema !== 1) throw new UserError(`A cluster file has schema: 1, and this one ${described(file.schema)}`);
  const ranks = count("ranks", file.ranks, 1);
  const listed = listOf("stages", file.stages);
  if (listed.length < ranks) {
    throw new UserError(`stages: ${ranks} ranks have ${ranks} stages or more, and there are ${listed.length}`);
  }
  const stages = listed.map((each, at) => stageOf(each, at));
  const { comm } = file;
  if (comm !== undefined) time("comm", comm);
  const messages = file.messages === undefined
    ? undefined
    : listOf("messages", file.messages).map((each, at) => messageOf(each, at, ranks));
  messages?.forEach(({ from, to, what }, at) => {
    const first = messages.findIndex((each) =>
      each.from === from && each.to === to && (!each.what || !what || each.what === what)
    );
    if (first < at) {
      throw new UserError(`messages[${at}]: messages[${first}] is the same from rank ${from} to rank ${to}`);
    }
  });
  const [hosts, tails] = (["hosts", "tails"] as const).map((name) => byRank(name, file[name], ranks));
  const network = networkOf(file.links, file.bytes, stages.length);
  if (network.bytes?.message !== undefined && (messages || comm !== undefined)) {
    throw new UserError("bytes.message and messages or comm both say what messages take; give one of them");
  }
  return {
    ranks,
    stages,
    ...network,
    ...(messages && { messages }),
    ...(comm !== undefined && { comm: comm as number }),
    ...(hosts && { hosts }),
    ...(tails && { tails }),
  };
}

/**
 * The costs of a cluster, in milliseconds. The time of a W of a width that is not known lies on a straight line between those that are,
 * and beyond the widest, or below the narrowest, it takes as long a micro-batch as there.
 *
 * ```ts
 * import { generate, simulate } from "twobp";
 * import { clusterCosts } from "twobp/schedules";
 *
 * const stages = [{ f: 17, i: 0.1, w: 33, b: 33.5 }, { f: 17, i: 20, w: 19, b: 32 }];
 * const costs = clusterCosts({ ranks: 2, stages, comm: 0.5 });
 * console.log(simulate(generate("1f1b-1", { devices: 2 }), costs).makespan); // 149.5
 * ```
 *
 * @throws {UserError} When a time is asked for that the cluster does not have, of a stage, a rank or a kind of action.
 */
export function clusterCosts(cluster: Cluster): Costs {
  const { ranks, stages, messages = [], hosts = [], tails = [] } = cluster;
  const network = clusterNetwork(cluster), message = network?.message;
  const { latency, bandwidth } = network?.network.inside ?? { latency: 0, bandwidth: Infinity };
  const comm = message === undefined ? cluster.comm ?? 0 : latency + message / bandwidth;
  const times = new Map<string, number>();
  for (const { from, to, what, time } of messages) {
    for (const kind of what ? [what] : ["F", "I"]) times.set(`${from} ${to} ${kind}`, time);
  }
  const expectRank = (rank: number) => {
    if (rank >= ranks) throw new UserError(`This cluster has ${ranks} ranks, and the schedule has a rank ${rank}`);
  };
  return {
    duration: (action, rank) => {
      expectRank(rank);
      return (hosts[rank] ?? 0) + actionTime(stages, action);
    },
    ahead: (stage) => stages[stage]?.r ?? 0,
    transfer: (from, to, kind) => from === to ? 0 : times.get(`${from} ${to} ${kind}`) ?? comm,
    // How much of a measured time is the line's nobody knows.
    ...message !== undefined && {
      line: (from, to, kind) => from === to || times.has(`${from} ${to} ${kind}`) ? 0 : message / bandwidth,
    },
    tail: (rank) => tails[rank] ?? 0,
  };
}

/**
 * The links of a cluster and what goes over them, in milliseconds and bytes: what `withReplicas()` takes. Undefined where the cluster
 * has none.
 */
export function clusterNetwork(
  { links, bytes }: Cluster,
): Pick<ReplicaOptions, "network" | "gradients" | "message"> | undefined {
  if (!links || !bytes) return undefined;
  const linkOf = ({ latency, bandwidth }: ClusterLink) => ({ latency, bandwidth: 1e6 * bandwidth });
  return {
    network: { inside: linkOf(links.inside), between: linkOf(links.between ?? links.inside) },
    gradients: bytes.gradients,
    ...bytes.message !== undefined && { message: bytes.message },
  };
}

function actionTime(stages: readonly ClusterStage[], { kind, stage, microbatches }: Action): number {
  const known = stages[stage];
  if (!known) throw new UserError(`This cluster has ${stages.length} stages, and the schedule has a stage ${stage}`);
  const needed = (what: Lowercase<Kind>, value: number | undefined) => {
    if (value !== undefined) return value;
    const remedy = what === "f"
      ? "add it"
      : what === "b"
      ? "add b, or i and w"
      : `trace a run with 2BP, or add ${what}: only a full backward is known`;
    throw new UserError(`The cluster does not say what ${kind} takes on stage ${stage}: ${remedy}`);
  };
  if (kind === "F") return needed("f", known.f);
  if (kind === "I") return needed("i", known.i);
  if (kind === "R") return known.r ?? 0;
  if (kind === "W") return needed("w", weightTimeOf(known.w, microbatches.length));
  const one = weightTimeOf(known.w, 1);
  return needed("b", known.b ?? (known.i === undefined || one === undefined ? undefined : known.i + one));
}

function weightTimeOf(w: ClusterStage["w"], width: number): number | undefined {
  if (w === undefined || typeof w === "number") return w && w * width;
  return weightTime(w, width);
}

function objectOf(what: string, value: unknown, names: readonly string[]): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(
      `${what} is an object with ${names.slice(0, fields.length).join(", ")}, not ${described(value)}`,
    );
  }
  const unknown = Object.keys(value).find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new UserError(`${what} has no ${described(unknown)}; there are ${names.slice(0, fields.length).join(", ")}`);
  }
  return value as Record<string, unknown>;
}

function listOf(what: string, value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new UserError(`${what} must be a list, not ${described(value)}`);
  return value;
}

function count(what: string, value: unknown, least: number, most = 65_536): number {
  if (Number.isInteger(value) && value as number >= least && value as number <= most) return value as number;
  throw new UserError(`${what} must be a whole number from ${least} to ${most}, not ${described(value)}`);
}

function time(what: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value < Infinity) return value;
  throw new UserError(`${what} must be a time in milliseconds, 0 or more, not ${described(value)}`);
}

function stageOf(value: unknown, at: number): ClusterStage {
  const stage = objectOf(`stages[${at}]`, value, ["stage", "f", "i", "w", "b", "r"]);
  if (stage.stage !== undefined && stage.stage !== at) {
    throw new UserError(`stages[${at}] is of stage ${described(stage.stage)}; give all stages, in their order`);
  }
  const made: { f?: number; i?: number; w?: ClusterStage["w"]; b?: number; r?: number } = {};
  for (const name of ["f", "i", "b", "r"] as const) {
    if (stage[name] !== undefined) made[name] = time(`stages[${at}].${name}`, stage[name]);
  }
  if (typeof stage.w === "object" && stage.w !== null && !Array.isArray(stage.w)) {
    const widths = Object.entries(stage.w);
    if (widths.length === 0) throw new UserError(`stages[${at}].w has no width`);
    made.w = Object.fromEntries(widths.map(([width, value]) => {
      if (!/^[1-9]\d{0,4}$/.test(width)) {
        throw new UserError(`stages[${at}].w: ${described(width)} is no number of micro-batches`);
      }
      return [Number(width), time(`stages[${at}].w of width ${width}`, value)];
    }));
  } else if (stage.w !== undefined) {
    made.w = time(`stages[${at}].w`, stage.w);
  }
  return made;
}

function messageOf(value: unknown, at: number, ranks: number): NonNullable<Cluster["messages"]>[number] {
  const message = objectOf(`messages[${at}]`, value, ["from", "to", "what", "time"]);
  const [from, to] = (["from", "to"] as const).map((name) =>
    count(`messages[${at}].${name}`, message[name], 0, ranks - 1)
  );
  if (from === to) throw new UserError(`messages[${at}] is from rank ${from} to itself`);
  const { what } = message;
  if (what !== undefined && what !== "F" && what !== "I") {
    throw new UserError(`messages[${at}].what must be "F" or "I", not ${described(what)}`);
  }
  return { from, to, ...(what && { what }), time: time(`messages[${at}].time`, message.time) };
}

/** Links and the bytes that go over them: both or neither. */
function networkOf(links: unknown, bytes: unknown, stages: number): Pick<Cluster, "links" | "bytes"> {
  if (links === undefined && bytes === undefined) return {};
  if (links === undefined || bytes === undefined) {
    const [given, absent] = links === undefined ? ["bytes", "links"] : ["links", "bytes"];
    throw new UserError(`A cluster file with ${given} needs ${absent} too`);
  }
  const { inside, between } = objectOf("links", links, ["inside", "between"]);
  const { gradients, message } = objectOf("bytes", bytes, ["gradients", "message"]);
  if (Array.isArray(gradients) && gradients.length !== stages) {
    throw new UserError(
      `bytes.gradients must be one number, or a list of ${stages}, one for each stage, and has ${gradients.length}`,
    );
  }
  return {
    links: {
      inside: linkOf("links.inside", inside),
      ...between !== undefined && { between: linkOf("links.between", between) },
    },
    bytes: {
      gradients: Array.isArray(gradients)
        ? gradients.map((each, stage) => sizeOf(`bytes.gradients[${stage}]`, each))
        : sizeOf("bytes.gradients", gradients),
      ...message !== undefined && { message: sizeOf("bytes.message", message) },
    },
  };
}

function linkOf(what: string, value: unknown): ClusterLink {
  const { latency, bandwidth } = objectOf(what, value, ["latency", "bandwidth"]);
  if (typeof bandwidth !== "number" || !(bandwidth > 0 && bandwidth < Infinity)) {
    throw new UserError(`${what}.bandwidth must be gigabytes in a second, above 0, not ${described(bandwidth)}`);
  }
  return { latency: time(`${what}.latency`, latency), bandwidth };
}

function sizeOf(what: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value < Infinity) return value;
  throw new UserError(`${what} must be a number of bytes, 0 or more, not ${described(value)}`);
}

function byRank(name: string, value: unknown, ranks: number): (number | null)[] | undefined {
  if (value === undefined) return undefined;
  const list = listOf(name, value);
  if (list.length !== ranks) {
    throw new UserError(`${name} must be a list of ${ranks}, one for each rank, and has ${list.length}`);
  }
  return list.map((each, rank) => each === null ? null : time(`${name}[${rank}]`, each));
}
