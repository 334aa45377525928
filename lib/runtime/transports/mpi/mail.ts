/**
 * Small records between processes: what ranks agree on, that one has failed, that a process ends. Each is bytes with a key, on a
 * tag of its own; whoever is first at a key, the record or who waits for it, waits for the other.
 */
import { deserialize, serialize } from "node:v8";
import { polled } from "../../../gpu/poll.ts";
import { type Promised, promised } from "../../promised.ts";
import type { Mpi } from "./library.ts";
import { createProgress, type Progress } from "./progress.ts";

/** The tag of records; messages of ranks have higher ones. */
export const recordTag = 0;

/** A process's way to tell the others something. */
export interface Mail {
  readonly progress: Progress;
  /** Tells one process, or this one itself. */
  tell(to: number, key: string, value: unknown): void;
  /** Waits for what a process tells under this key. */
  hear(from: number, key: string): Promise<unknown>;
  /** Has records under this key handed over as they come, instead of waiting for who hears them. */
  onNews(key: string, take: (from: number, value: unknown) => void): void;
  /** Ends every wait for a process, now and from now on: it tells nothing any more. */
  lose(from: number, error: Error): void;
  /** Forgets waits, and records that nobody has heard, whose keys are old. */
  forget(isOld: (key: string) => boolean): void;
}

/** @param own Which process this is. */
export function createMail(mpi: Mpi, own: number): Mail {
  const boxes = new Map<string, Promised<unknown>>();
  const lost = new Map<number, Error>();
  const news = new Map<string, (from: number, value: unknown) => void>();
  const progress = createProgress(mpi, collect);

  function boxOf(from: number, key: string): Promised<unknown> {
    const name = `${from} ${key}`;
    let box = boxes.get(name);
    if (!box) boxes.set(name, box = promised());
    return box;
  }

  function collect() {
    for (let next = mpi.probe(recordTag); next; next = mpi.probe(recordTag)) {
      const bytes = new Uint8Array(next.bytes);
      mpi.take(bytes, next.source, recordTag);
      const [key, value] = deserialize(bytes) as [string, unknown];
      deliver(next.source, key, value);
    }
  }

  function deliver(from: number, key: string, value: unknown) {
    const take = news.get(key);
    if (take) take(from, value);
    else boxOf(from, key).resolve(value);
  }

  return {
    progress,
    tell(to, key, value) {
      const bytes = serialize([key, value]);
      if (to === own) deliver(own, key, deserialize(bytes)[1]); // nobody else's object is changed by who hears it
      else progress.send(bytes, to, recordTag);
    },
    async hear(from, key) {
      const box = boxOf(from, key), end = progress.listen();
      const error = lost.get(from);
      if (error) box.reject(error); // unless it has told this before
      try {
        return await polled(box.promise);
      } finally {
        end();
        boxes.delete(`${from} ${key}`);
      }
    },
    onNews: (key, take) => void news.set(key, take),
    lose(from, error) {
      if (lost.has(from)) return;
      lost.set(from, error);
      for (const [name, box] of boxes) if (name.startsWith(`${from} `)) box.reject(error);
    },
    forget(isOld) {
      for (const [name, box] of boxes) {
        if (!isOld(name.slice(name.indexOf(" ") + 1))) continue;
        box.reject(new Error("the step that waited for this has failed")); // or the wait would be looked after for ever
        boxes.delete(name);
      }
    },
  };
}
