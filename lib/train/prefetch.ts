/** Batches drawn ahead, while a step runs. */
import { UserError } from "../errors.ts";
import { expectFields, expectValue, having, positive } from "../rules.ts";
import type { Batch, BatchSource, PositionedSource } from "./data.ts";
import { oneAtATime } from "./one_at_a_time.ts";
import type { SourcePosition } from "./position.ts";

/** A batch that is drawn, and where its source stands behind it. */
interface Ahead {
  readonly drawn: Promise<Batch>;
  position?: SourcePosition;
}

/**
 * The same source, always so many batches ahead of whoever draws: they are read, decoded and made tokens while a step waits for its
 * devices. Where it stands is behind the batches that have been given, not those drawn ahead: `source` must not be drawn from
 * by anybody else.
 *
 * ```ts
 * import { createModel } from "twobp";
 * import { openCorpus, prefetched } from "twobp/train";
 *
 * const corpus = await openCorpus("stories.jsonl");
 * const source = prefetched(corpus.train({ model: createModel("llama-tiny"), seed: 1 }), { samples: 8 });
 * for (let step = 0; step < 3; step++) console.log((await source.next(8)).inputs.length);
 * ```
 *
 * @param options How many `samples` each batch has, which is what `next` must be called with, and how many batches are drawn `ahead`, 2 by
 * default.
 * @throws {UserError} When `source` is none, or a number is no whole one of 1 or more. An error of the source comes with the batch that it
 * belongs to; that is then tried again.
 */
export function prefetched(
  source: BatchSource,
  options: { readonly samples: number; readonly ahead?: number },
): PositionedSource<Promise<Batch>> {
  expectValue("prefetched: source", source, { ...having("next"), right: "a source of batches, an object with next()" });
  const { samples, ahead = 2 } = { ...options };
  expectFields("prefetched", { ...options, ahead }, { samples: positive, ahead: positive });
  const waiting: Ahead[] = [];
  let last: Promise<unknown> = Promise.resolve();
  let given = source.position?.();

  function draw(): void {
    const batch: { -readonly [Name in keyof Ahead]: Ahead[Name] } = {
      drawn: last.then(async () => {
        const drawn = await source.next(samples);
        batch.position = source.position?.();
        return drawn;
      }),
    };
    last = batch.drawn;
    last.catch(() => {}); // told by `next`
    waiting.push(batch);
  }

  async function next(): Promise<Batch> {
    while (waiting.length <= ahead) draw();
    const batch = waiting.shift()!;
    try {
      const drawn = await batch.drawn;
      given = batch.position;
      return drawn;
    } catch (error) {
      // What was to come behind it never began: the source stands before the batch that failed.
      waiting.length = 0;
      last = Promise.resolve();
      throw error;
    }
  }

  const inTurn = oneAtATime();
  return {
    next(number) {
      if (number !== samples) {
        throw new UserError(`This source draws ${samples} samples ahead each time; ${number} were asked for`);
      }
      return inTurn(next);
    },
    position() {
      if (!given) {
        throw new UserError("The source that is drawn ahead of does not know where it stands: it has no position()");
      }
      return given;
    },
  };
}
