/** Traces as PyTorch's profiler writes them, of steps whose times are known: what profiles are tested against. */
import { type Costs, formatAction, type Schedule, simulate } from "../../lib/schedules/mod.ts";

/** What a trace is to look like. */
export interface TorchTraceOptions {
  /** Steps; the lengths of all of their actions times `slow[step]`. */
  readonly steps?: number;
  readonly slow?: readonly number[];
  /** Whether there are ProfilerStep marks. */
  readonly marks?: boolean;
  /** Operations within actions, the kernels of a GPU, or annotations alone. */
  readonly inside?: "operations" | "kernels" | "repetitions" | "nothing";
  /** By rank what its clock is ahead, in milliseconds. */
  readonly ahead?: readonly number[];
  /** By rank its machine. */
  readonly hosts?: readonly string[];
  /** By rank what its file says; by default its number. */
  readonly ranks?: readonly (number | undefined)[];
  /** Time of a message, in milliseconds. */
  readonly comm?: number;
}

type Event = Record<string, unknown>;

/**
 * One text a rank: each action stands from the moment its rank was free, as PyTorch calls it, although it works only from the moment
 * its message was there.
 */
export function torchTraces(schedule: Schedule, costs: Costs, options: TorchTraceOptions = {}): string[] {
  const { steps = 3, slow = [], marks = true, inside = "operations", ahead = [], hosts = [], ranks } = options;
  const lists: Event[][] = schedule.actions.map(() => []);
  let zero = 4_871_878_000_000, launch = 1;
  for (let step = 0; step < steps; step++) {
    const factor = slow[step] ?? 1;
    const scaled: Costs = {
      duration: (action, rank, index) => factor * costs.duration(action, rank, index),
      transfer: (from, to) => from === to ? 0 : options.comm ?? 0,
    };
    const { spans, makespan } = simulate(schedule, scaled);
    const free = schedule.actions.map(() => 0);
    schedule.actions.forEach((_, rank) => {
      const at = (time: number) => zero + 1000 * (time + (ahead[rank] ?? 0));
      const common = { ph: "X", pid: 100 + rank, tid: 100 + rank };
      if (marks) {
        lists[rank].push({
          ...common,
          cat: "user_annotation",
          name: `ProfilerStep#${step + 5}`,
          ts: at(-0.5),
          dur: 1000 * (makespan + 1),
        });
      }
    });
    for (const { rank, action, start, end } of spans) {
      const at = (time: number) => zero + 1000 * (time + (ahead[rank] ?? 0));
      const common = { ph: "X", pid: 100 + rank, tid: 100 + rank }, list = lists[rank];
      const name = `PP:${formatAction(action)}`, length = 1000 * (end - start);
      if (inside === "kernels" || inside === "repetitions") {
        // The host calls at once what the GPU does later.
        list.push({ ...common, cat: "user_annotation", name, ts: at(-0.4) + 3 * list.length, dur: 2 });
        if (inside === "repetitions") {
          list.push({ ...common, tid: 7, cat: "gpu_user_annotation", name, ts: at(start), dur: length });
          continue;
        }
        const called = list.at(-1)!.ts as number;
        for (const part of [0, 1]) {
          const correlation = launch++;
          const half = { ts: at(start) + part * length / 2, dur: length / 2 };
          list.push({
            ...common,
            tid: 900,
            cat: "cuda_runtime",
            name: "cudaLaunchKernel",
            ts: called + 1,
            dur: 1,
            args: { correlation },
          });
          list.push({ ...common, pid: 0, tid: 7, cat: "kernel", name: "gemm", ...half, args: { correlation } });
        }
        continue;
      }
      const called = free[rank];
      free[rank] = end;
      list.push({ ...common, cat: "user_annotation", name, ts: at(called), dur: 1000 * (end - called) });
      if (inside === "operations" && length > 0) {
        for (const part of [0, 1, 2]) {
          list.push({ ...common, cat: "cpu_op", name: "aten::mm", ts: at(start) + part * length / 3, dur: length / 3 });
        }
      }
    }
    zero += 1000 * (makespan + 5);
  }
  return lists.map((traceEvents, rank) => {
    const own = ranks ? ranks[rank] : rank;
    return JSON.stringify({
      schemaVersion: 1,
      distributedInfo: own === undefined ? undefined : { backend: "gloo", rank: own, world_size: lists.length },
      host_name: hosts[rank] ?? "host",
      baseTimeNanoseconds: 1790857026000000000,
      traceEvents,
    });
  });
}

/** The sources of these texts. */
export function sourcesOf(texts: readonly string[]): { name: string; text: string }[] {
  return texts.map((text, rank) => ({ name: `rank${rank}.json`, text }));
}
