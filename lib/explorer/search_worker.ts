/** A search beside the page: what the page says to it, what it answers, and the worker's side of it. */
import { reasonOf, UserError } from "../errors.ts";
import { type Progress, search } from "../schedules/search/search.ts";
import type { Schedule } from "../schedules/schedule.ts";
import { searchVerdict } from "../report/search.ts";
import type { Lists } from "./lists.ts";
import { costsOf, memoryOf } from "./pricing.ts";
import { read, type Values } from "./settings.ts";

/** What to search for. */
export interface Question {
  readonly values: Values;
  readonly microbatches: number;
  /** Of each stage its rank. */
  readonly placement: readonly number[];
  /** What to start from, where that runs to its end and has no R, of which a search knows nothing. */
  readonly from?: Schedule;
}

/** What the page says: what to search for, or to stop. */
export type Order = Question | "stop";

/** What the worker answers. */
export type Answer =
  | { readonly progress: Progress }
  | { readonly found: Found }
  | { readonly refused: string };

/** What a search came to. */
export interface Found {
  readonly lists: Lists;
  readonly microbatches: number;
  /** Of a stage that the values mean. */
  readonly ranges: number;
  readonly makespan: number;
  /** Whether that is proven, and how far it may be from the fastest. */
  readonly verdict: string;
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
  { values, microbatches, placement, from }: Question,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<Answer> {
  try {
    const settings = read(values), { cap, budget, ranges } = settings;
    const stages = placement.length, devices = Math.max(...placement) + 1;
    const result = await search({
      devices,
      placement,
      from,
      microbatches,
      costs: costsOf(settings, stages, devices, ranges),
      memory: memoryOf(settings, stages, ranges),
      cap,
      budget,
      onProgress,
      signal,
    });
    const { schedule: { actions: lists }, makespan } = result;
    return { found: { lists, microbatches, ranges, makespan, verdict: searchVerdict(result, signal.aborted) } };
  } catch (error) {
    if (error instanceof UserError) return { refused: error.message };
    return { refused: `The search failed, which is a mistake of this page: ${reasonOf(error)}` };
  }
}
