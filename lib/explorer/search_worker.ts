/** A search beside the page: what the page says to it, what it answers, and the worker's side of it. */
import { reasonOf, UserError } from "../errors.ts";
import { type Progress, search } from "../schedules/search/search.ts";
import type { Lists } from "./lists.ts";
import { costsOf, memoryOf } from "./pricing.ts";
import { read, type Values } from "./settings.ts";

/** What the page says: what to search for, or to stop. */
export type Order = { readonly values: Values; readonly microbatches: number } | "stop";

/** What the worker answers. */
export type Answer =
  | { readonly progress: Progress }
  | { readonly found: Found }
  | { readonly refused: string };

/** What a search came to. */
export interface Found {
  readonly lists: Lists;
  readonly microbatches: number;
  readonly makespan: number;
  readonly lowerBound: number;
  readonly proven: boolean;
  /** Whether somebody stopped it. */
  readonly stopped: boolean;
}

/** The part of a worker's global scope that is needed: the page's types know it as a window. */
interface Scope {
  onmessage: ((event: { data: Order }) => void) | null;
  postMessage(answer: Answer): void;
}

/** Makes this worker answer orders. */
export function serve(scope: Scope): void {
  const stop = new AbortController();
  scope.onmessage = ({ data }) => {
    if (data === "stop") stop.abort();
    else void searchFor(data, stop.signal, (progress) => scope.postMessage({ progress })).then(scope.postMessage);
  };
}

/** Searches what the form asks for; never throws. */
export async function searchFor(
  { values, microbatches }: Exclude<Order, "stop">,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<Answer> {
  try {
    const settings = read(values), { devices, cap, budget } = settings;
    const result = await search({
      devices,
      microbatches,
      costs: costsOf(settings, devices, devices),
      memory: memoryOf(settings, devices),
      cap,
      budget,
      onProgress,
      signal,
    });
    const { schedule: { actions: lists }, makespan, lowerBound, proven } = result;
    return { found: { lists, microbatches, makespan, lowerBound, proven, stopped: signal.aborted } };
  } catch (error) {
    if (error instanceof UserError) return { refused: error.message };
    return { refused: `The search failed, which is a mistake of this page: ${reasonOf(error)}` };
  }
}

/** What a search found, in a sentence. */
export function foundText({ makespan, lowerBound, proven, stopped }: Found): string {
  const time = (value: number) => Number(value.toPrecision(6));
  if (proven) return `${time(makespan)} units, proven: no schedule of one stage a rank is faster.`;
  return `${time(makespan)} units, ${stopped ? "stopped" : "not proven"}: no schedule is faster than ${
    time(lowerBound)
  }, and this one is ${(100 * (makespan / lowerBound - 1)).toFixed(1)} % above.`;
}
