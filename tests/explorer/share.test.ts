/** The page's state as the end of its address, and the texts of lists and fields. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { UserError } from "../../lib/errors.ts";
import { formatLists, type Lists, parseLists, placementOf } from "../../lib/explorer/lists.ts";
import { defaults, type Field, read } from "../../lib/explorer/settings.ts";
import { fromHash, toHash } from "../../lib/explorer/share.ts";
import { first, type State, withEdit, withGiven, withValue } from "../../lib/explorer/state.ts";
import type { Kind } from "../../lib/schedules/schedule.ts";

const plain = { noNullPrototype: true };
const action = fc.record({
  kind: fc.constantFrom<Kind>("F", "I", "W", "B"),
  stage: fc.nat(30),
  microbatches: fc.array(fc.nat(200), { minLength: 1, maxLength: 4 }),
}, plain);
const someLists: fc.Arbitrary<Lists> = fc.array(fc.array(action, { maxLength: 5 }), { minLength: 2, maxLength: 4 });

test("a state goes into the address and comes out of it as it was, whatever was typed and edited", () => {
  const fields = fc.record(Object.fromEntries(Object.keys(defaults).map((field) => [field, fc.string()])), plain);
  const state = fc.record({
    values: fields as unknown as fc.Arbitrary<State["values"]>,
    given: fc.option(fc.record({ name: fc.stringMatching(/^[a-z]{1,20}$/), lists: someLists }, plain), {
      nil: undefined,
    }),
    base: fc.option(someLists, { nil: undefined }),
    split: fc.option(someLists, { nil: undefined }),
  }, plain);
  fc.assert(
    fc.property(state, ({ values, given, base, split }) => {
      const whole: State = { values, ...given && { given }, edits: { ...base && { base }, ...split && { split } } };
      const link = new URL(`file:///explorer.html#${toHash(whole)}`); // a browser changes no sign of it
      assert.deepEqual(fromHash(link.hash), whole);
    }),
    { numRuns: 200, seed: 1 },
  );
  assert.equal(toHash(first), "");
  assert.deepEqual(fromHash(""), first);
});

test("lists are written in signs that links leave as they are", () => {
  const lists = parseLists("0F0.0F1.0I0.0I1.0W0-1_1F0.1F1");
  assert.deepEqual(lists[0][4], { kind: "W", stage: 0, microbatches: [0, 1] });
  assert.equal(encodeURIComponent(formatLists(lists)), "0F0.0F1.0I0.0I1.0W0-1_1F0.1F1");
  assert.deepEqual(placementOf(parseLists("0F0.3F0_1F0.2F0")), [0, 1, 1, 0]);
});

test("a link that is damaged is refused with what is wrong in it", () => {
  const says = (hash: string, pattern: RegExp) =>
    assert.throws(() => fromHash(hash), (error) => error instanceof UserError && pattern.test(error.message));
  says("#ranks=4", /"ranks", which this page knows nothing of/);
  says("#base=0F0.0X1", /"0X1" is no action; one is written as 0F3/);
  says("#given=0F0..0F1", /"" is no action/);
  assert.throws(() => placementOf(parseLists("0F0_0F1")), /Stage 0 is on ranks 0 and 1/);
  assert.throws(() => placementOf(parseLists("0F0_2F1")), /none of them is stage 1/);
});

test("a field that is wrong is named with what would be right", () => {
  const says = (field: Field, value: string, message: string) =>
    assert.throws(() => read({ ...defaults, [field]: value }), new UserError(message));
  says("devices", "four", 'Ranks must be a whole number from 1 to 64, not "four"');
  says("devices", "65", "Ranks must be a whole number from 1 to 64, not 65");
  says("f", "1,,2", 'F must be a finite number, 0 or more, not ""');
  says("w", "1,-2", "W must be a finite number, 0 or more, not -2");
  says("policy", "cap", "The policy cap keeps the cap of memory, and there is none: give one");
  assert.deepEqual(read({ ...defaults, policy: "cap", cap: "4" }).policy, { kind: "cap", bytes: 4 });
  assert.deepEqual(read({ ...defaults, policy: "every", every: "3" }).policy, { kind: "every", count: 3 });
  assert.deepEqual(read({ ...defaults, f: "1, 2.5,3e0" }).f, [1, 2.5, 3]);
  assert.equal(read(defaults).microbatches, undefined);
});

test("edits go with what they are edits of, and stay where costs alone change", () => {
  const lists = parseLists("0F0.0B0");
  const edited = withEdit(withEdit(first, "base", lists), "split", lists);
  assert.deepEqual(withValue(edited, "f", "2").edits, edited.edits);
  assert.deepEqual(withValue(edited, "policy", "end").edits, { base: lists });
  assert.deepEqual(withValue(edited, "devices", "8").edits, {});
  const given = withGiven(edited, "mine.csv", lists, 1);
  assert.deepEqual([given.edits, given.values.devices, given.values.microbatches], [{}, "1", "1"]);
  assert.equal(withValue(given, "schedule", "gpipe").given, undefined);
  assert.equal(withValue(given, "latency", "1").given?.name, "mine.csv");
});
