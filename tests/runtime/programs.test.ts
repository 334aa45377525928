/** What a pipeline makes of a schedule before it runs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createPrograms } from "../../lib/runtime/programs.ts";
import { nodeKinds, type Program } from "../../lib/schedules/program.ts";
import type { Action, Schedule } from "../../lib/schedules/schedule.ts";
import { generate, scheduleNames } from "../../lib/schedules/generators/generate.ts";

test("a schedule is lowered once, and again only when anything of it has changed", () => {
  for (const name of scheduleNames) {
    const schedule = structuredClone(generate(name, { devices: 2, microbatches: 4 })) as Schedule & { name: string };
    const programOf = createPrograms([...schedule.placement], 2, {});
    const known = programOf(schedule);
    assert.equal(programOf(schedule), known);
    assert.deepEqual(known.schedule, schedule);
    assert.deepEqual(structuredClone(known), known, "plain data, which another process could be sent");
    const actions = schedule.actions as Action[][];
    const other = (list: Action[]) =>
      list.findIndex(({ stage, kind }) => stage !== list[0].stage || kind !== list[0].kind);
    const changes: Record<string, () => void> = {
      "a kind": () => void Object.assign(actions[0][0], { kind: "Z" }),
      "a stage": () => void Object.assign(actions[1][1], { stage: 7 }),
      "a micro-batch": () => void Object.assign(actions[1][2], { microbatches: [5] }),
      "one micro-batch more": () => void (actions[0][1].microbatches as number[]).push(1),
      "an action more": () => void actions[0].push(actions[0][0]),
      "an action less": () => void actions[1].pop(),
      "a list less": () => void actions.pop(),
      "other lists": () => void Object.assign(schedule, { actions: null }),
      "no action": () => void Object.assign(actions[0], [null]),
      "other ranks": () => void (schedule.placement as number[]).fill(1, 0, 1),
      "another order": () => {
        const list = actions[0], at = other(list);
        [list[0], list[at]] = [list[at], list[0]];
      },
    };
    for (const [what, change] of Object.entries(changes)) {
      const before = structuredClone(schedule);
      change();
      let found: Program | undefined;
      try {
        found = programOf(schedule);
      } catch (error) {
        assert.equal((error as Error).name, "UserError", `${name}, ${what}: ${error}`);
      }
      assert.notEqual(found, known, `${name}, ${what}`);
      Object.assign(schedule, before);
      actions.splice(0, actions.length, ...before.actions as Action[][]);
      Object.assign(schedule, { actions });
    }
    schedule.name = "renamed";
    assert.equal(programOf(schedule).schedule.name, "renamed");
  }
});

test("what is lowered is what the program keeps, even of a schedule that says something else each time it is asked", () => {
  const [one, other] = ["gpipe", "1f1b-1"].map((name) => generate(name, { devices: 2, microbatches: 4 }));
  let asked = 0;
  const fickle: Schedule = {
    ...one,
    get actions() {
      return asked++ & 2 ? other.actions : one.actions;
    },
  };
  const programOf = createPrograms([0, 1], 2, {});
  for (let time = 0; time < 3; time++) {
    const { kind, first, schedule: { actions } } = programOf(fickle);
    const kept = actions.flatMap((list) => list.map((action) => nodeKinds.indexOf(action.kind)));
    assert.deepEqual(kept, [...kind.subarray(0, first[2])]);
  }
});

test("a program keeps what was lowered, whatever becomes of the caller's lists", () => {
  const schedule = structuredClone(generate("gpipe", { devices: 2, microbatches: 2 }));
  const program = createPrograms([0, 1], 2, {})(schedule);
  const before = structuredClone(program.schedule);
  (schedule.actions[1] as Action[]).reverse();
  (schedule.placement as number[]).reverse();
  assert.deepEqual(program.schedule, before);
});

test("a schedule that was changed since the last step is looked at again, and refused for what is wrong now", () => {
  const schedule = structuredClone(generate("gpipe", { devices: 2, microbatches: 2 }));
  const programOf = createPrograms([0, 1], 2, {});
  programOf(schedule);
  (schedule.actions[1] as Action[]).reverse();
  const refused = { name: "UserError", message: /needs the forward 1F0 first/ };
  assert.throws(() => programOf(schedule), refused);
  assert.throws(() => programOf(schedule), refused, "and is not taken the second time");
  (schedule.actions[1] as Action[]).reverse();
  programOf(schedule);
});
