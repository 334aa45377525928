/** Actions moved within a rank's list, and steps undone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { dropAt, moveAction } from "../../lib/explorer/edit.ts";
import { begin, change, redo, undo } from "../../lib/explorer/history.ts";
import { formatLists, parseLists } from "../../lib/explorer/lists.ts";

test("an action moved forth comes right behind the one whose place it takes, moved back right before it", () => {
  const lists = parseLists("0F0.0F1.0F2.0F3_1F0.1F1");
  const moved = (from: number, to: number) => formatLists(moveAction(lists, 0, from, to)).split("_")[0];
  assert.equal(moved(0, 2), "0F1.0F2.0F0.0F3");
  assert.equal(moved(3, 1), "0F0.0F3.0F1.0F2");
  assert.equal(moved(1, 1), "0F0.0F1.0F2.0F3");
  assert.equal(moved(1, 99), "0F0.0F2.0F3.0F1");
  assert.equal(moved(1, -1), "0F1.0F0.0F2.0F3");
  assert.equal(moveAction(lists, 0, 0, 2)[1], lists[1], "other ranks stay");
});

test("an action moved there and back leaves what was there", () => {
  const lists = parseLists("0F0.0F1.0F2.0F3.0F4");
  for (let from = 0; from < 5; from++) {
    for (let to = 0; to < 5; to++) {
      assert.deepEqual(moveAction(moveAction(lists, 0, from, to), 0, to, from), lists);
    }
  }
});

test("where an action is dropped is counted without itself", () => {
  const bars = [0, 1, 2, 5].map((start) => ({ start, end: start + 1 }));
  const places = [-1, 0.4, 0.6, 1.4, 1.6, 3, 5.6, 9].map((time) => dropAt(bars, 1, time));
  assert.deepEqual(places, [0, 0, 1, 1, 1, 2, 3, 3]);
});

test("undo and redo walk through the states, and typing into one field is one step", () => {
  let history = begin(0);
  for (const [value, to] of [[1, "a"], [2, "a"], [3, "b"], [4, undefined], [5, undefined]] as const) {
    history = change(history, value, to);
  }
  const back = [5];
  while (history.past.length > 0) back.push((history = undo(history)).now);
  assert.deepEqual(back, [5, 4, 3, 2, 0]);
  assert.equal(undo(history).now, 0);
  history = redo(redo(history));
  assert.equal(history.now, 3);
  history = change(history, 9, "b");
  assert.deepEqual([history.future, undo(history).now], [[], 3], "what was undone is gone, and 9 is a step of its own");
  assert.equal(redo(history), history);
});
