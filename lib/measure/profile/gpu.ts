/** When actions ran on the GPU. Their annotations on the host say when they were launched. */
import type { Annotation, Collected, Interval, Kernels } from "./collect.ts";

/** The times that actions have on the GPU, and what is to be said about where times come from. */
export interface GpuTimes {
  /** By annotation of the host; absent where the trace has nothing of a GPU. */
  readonly times?: ReadonlyMap<Annotation, Interval>;
  /** Why the host's times are taken although there is a GPU. */
  readonly note?: string;
}

/**
 * From the kernels that were launched within each annotation; without those from the annotations that the profiler repeats for the
 * GPU, where all are there. Kernels are better: those that another thread launches, as a backward's are, are not in the repetition.
 */
export function onGpu(annotations: readonly Annotation[], collected: Collected): GpuTimes {
  const computing = annotations.filter(({ actions }) => actions.length > 0);
  if (collected.kernels.length > 0 && collected.launches.length > 0) {
    return { times: inOrder(computing, byKernels(computing, collected)) };
  }
  if (collected.onGpu.length === 0) return {};
  const repeated = byRepetition(computing, collected.onGpu);
  if (repeated) return { times: repeated };
  return { note: "not every action has its times on the GPU, so these are the host's" };
}

/** First start to last end of the kernels that were launched within each annotation. */
function byKernels(annotations: readonly Annotation[], { kernels, launches }: Kernels): Map<Annotation, Interval> {
  const launched = new Map<number, number>();
  for (let at = 0; at < launches.length; at += 2) launched.set(launches.at(at), launches.at(at + 1));
  const times = new Map<Annotation, { start: number; end: number }>();
  for (let at = 0; at < kernels.length; at += 3) {
    const moment = launched.get(kernels.at(at));
    if (moment === undefined) continue;
    let low = 0, high = annotations.length;
    while (low < high) {
      const middle = low + high >> 1;
      if (annotations[middle].start <= moment) low = middle + 1;
      else high = middle;
    }
    const annotation = annotations[low - 1];
    if (!annotation || moment > annotation.end) continue;
    const start = kernels.at(at + 1), end = kernels.at(at + 2), known = times.get(annotation);
    if (!known) times.set(annotation, { start, end });
    else [known.start, known.end] = [Math.min(known.start, start), Math.max(known.end, end)];
  }
  return times;
}

/** An action that launched nothing takes no time, behind the one before. */
function inOrder(annotations: readonly Annotation[], times: Map<Annotation, Interval>): Map<Annotation, Interval> {
  let last: number | undefined;
  for (const annotation of annotations) {
    const known = times.get(annotation);
    if (!known) times.set(annotation, { start: last ?? annotation.start, end: last ?? annotation.start });
    last = times.get(annotation)!.end;
  }
  return times;
}

/** The repetitions on the stream that has most of them, in the order of the host's. */
function byRepetition(
  annotations: readonly Annotation[],
  all: readonly Annotation[],
): Map<Annotation, Interval> | undefined {
  const streams = new Map<string, Annotation[]>();
  for (const each of all) {
    if (each.actions.length === 0) continue;
    const list = streams.get(each.thread) ?? [];
    streams.set(each.thread, list);
    list.push(each);
  }
  const timeOf = (list: readonly Annotation[]) => list.reduce((sum, { start, end }) => sum + end - start, 0);
  const [main] = [...streams.values()].sort((a, b) => timeOf(b) - timeOf(a));
  if (!main || main.length !== annotations.length) return undefined;
  main.sort((a, b) => a.start - b.start);
  const times = new Map<Annotation, Interval>();
  for (const [at, annotation] of annotations.entries()) {
    if (main[at].name !== annotation.name) return undefined;
    times.set(annotation, main[at]);
  }
  return times;
}
