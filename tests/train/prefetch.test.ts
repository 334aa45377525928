import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as after } from "node:timers/promises";
import type { Batch, BatchSource } from "../../lib/train/data.ts";
import { textSource } from "../../lib/train/data.ts";
import { prefetched } from "../../lib/train/prefetch.ts";

const text = new TextEncoder().encode("to be or not to be, that is the question");
const error = (message: string | RegExp) => ({ name: "UserError", message });

/** Counts what is drawn, and takes a moment for it. */
function slow(ms: number, fails: (drawn: number) => boolean = () => false) {
  const drawn = { count: 0 };
  let at = 0;
  const source: BatchSource<Promise<Batch>> = {
    async next(samples) {
      drawn.count++;
      await after(ms);
      if (fails(drawn.count)) throw new Error(`number ${drawn.count} fails`);
      at++;
      return { samples, inputs: Uint32Array.of(at), targets: Uint32Array.of(at) };
    },
    position: () => ({ at }),
  };
  return { source, drawn };
}

test("the batches drawn ahead are those of the source, and so are the positions", async () => {
  const source = textSource(text, { length: 8, seed: 1 }), plain = textSource(text, { length: 8, seed: 1 });
  const ahead = prefetched(source, { samples: 3, ahead: 4 });
  assert.deepEqual(ahead.position(), plain.position());
  for (let i = 0; i < 10; i++) {
    assert.deepEqual(await ahead.next(3), plain.next(3));
    assert.deepEqual(ahead.position(), plain.position());
  }
  const from = ahead.position();
  const later = prefetched(textSource(text, { length: 8, seed: 1, from }), { samples: 3 });
  assert.deepEqual(await later.next(3), plain.next(3));
});

test("while a step runs the next batches are drawn, so many and no more", async () => {
  const { source, drawn } = slow(1);
  const ahead = prefetched(source, { samples: 1, ahead: 3 });
  assert.equal(drawn.count, 0, "nothing before the first is asked for");
  await ahead.next(1);
  await after(60);
  assert.equal(drawn.count, 4);
  await ahead.next(1);
  await after(20);
  assert.equal(drawn.count, 5);
});

test("a step that takes longer than a batch does not wait for one", async () => {
  const { source } = slow(10);
  const ahead = prefetched(source, { samples: 1 });
  await ahead.next(1);
  for (let step = 0; step < 10; step++) {
    await after(60);
    let isThere = false;
    const batch = ahead.next(1).then(() => isThere = true);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve(); // no time passes
    assert.ok(isThere, `step ${step}`);
    await batch;
  }
});

test("an error comes with its batch, and that is tried again", async () => {
  const { source } = slow(1, (drawn) => drawn === 3 || drawn === 4);
  const ahead = prefetched(source, { samples: 1, ahead: 2 });
  assert.deepEqual([...(await ahead.next(1)).inputs, ...(await ahead.next(1)).inputs], [1, 2]);
  await after(20);
  await assert.rejects(ahead.next(1), /number 3 fails/);
  assert.deepEqual(ahead.position(), { at: 2 });
  await assert.rejects(ahead.next(1), /number 4 fails/);
  assert.deepEqual([...(await ahead.next(1)).inputs, ...(await ahead.next(1)).inputs], [3, 4]);
  assert.deepEqual(ahead.position(), { at: 4 });
});

test("other numbers of samples, and sources that are none, are refused", async () => {
  const ahead = prefetched(slow(0).source, { samples: 2 });
  assert.throws(() => ahead.next(3), error("This source draws 2 samples ahead each time; 3 were asked for"));
  assert.equal((await ahead.next(2)).samples, 2);
  assert.throws(
    () => prefetched({} as never, { samples: 2 }),
    error(/^prefetched: source must be a source of batches/),
  );
  assert.throws(
    () => prefetched(slow(0).source, { samples: 0 }),
    error(/^prefetched: samples must be a whole number, 1 or more/),
  );
  assert.throws(() => prefetched(slow(0).source, {} as never), error(/^prefetched: samples must be/));
  assert.throws(
    () => prefetched(slow(0).source, { samples: 1, ahaed: 2 } as never),
    error(/^prefetched: there is no "ahaed"/),
  );
  const { next } = slow(0).source;
  const without = prefetched({ next }, { samples: 1 });
  assert.equal((await without.next(1)).samples, 1);
  assert.throws(() => without.position(), error(/does not know where it stands: it has no position\(\)$/));
});
