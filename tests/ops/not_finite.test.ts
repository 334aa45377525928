/**
 * A number that is not finite is never hidden: one NaN or infinity in any input of any operation, by every candidate, shows in
 * every element that depends on it, and in no other.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { type Candidate, type Observed, observeProblems, operations } from "../../lib/ops/choice.ts";
import { gelu } from "../../lib/ops/gelu.ts";
import { addRelu, relu, reluBackward } from "../../lib/ops/relu.ts";
import { swiglu } from "../../lib/ops/swiglu.ts";
import { empty, release, sizeOf, type Tensor, toArray, writeArray } from "../../lib/tensor.ts";
import { generator } from "../../lib/train/random.ts";
import * as gelus from "../reference/gelu.ts";
import * as swiglus from "../reference/swiglu.ts";
import { type Case, cases, type Numbers } from "./not_finite_cases.ts";
import { close, device, dirty, tensor, withCandidate } from "./support.ts";

after(close);

const planted = [NaN, Infinity, -Infinity];
const places = 2; // in each input

/** Candidates that have been through the table, as "operation candidate". */
const tested = new Set<string>();

for (const dtype of ["f32", "f16"] as const) {
  for (const each of cases) {
    test(`${each.name} in ${dtype} hides no number that is not finite, and spreads none`, async (t) => {
      const on = await device();
      if (dtype === "f16" && !on.gpu.info.f16) return t.skip("this device has no f16");
      const tensors = tensorsOf(on, each, dtype);
      const data = dtype === "f32" ? inputsOf(each) : inputsOf(each, (values) => fromHalf(toHalf(values)));
      const write = (from: Numbers) => {
        for (const [name, tensor] of Object.entries(tensors)) {
          if (name in from) writeArray(tensor, from[name] as Float32Array | Uint32Array);
          else if (tensor.dtype !== "u32") writeArray(tensor, new Float32Array(sizeOf(tensor.shape)).fill(7));
        }
      };
      write(data);
      const observed = await observeProblems(() => each.record(tensors));
      const expectedOf = new Map<string, Numbers>(); // of each way the same
      for (const name of waysOf(on, observed, dtype)) {
        const random = generator(each.name);
        for (const input of Object.keys(data)) {
          if (data[input] instanceof Uint32Array) continue;
          for (let place = 0; place < places; place++) {
            const at = random.integer(data[input].length);
            for (const value of planted) {
              const values = Float32Array.from(data[input]);
              values[at] = value;
              const given = { ...data, [input]: values };
              const what = `${value} at ${at} of ${input}`;
              if (!expectedOf.has(what)) expectedOf.set(what, each.expected(given));
              write(given);
              withCandidate(name, () => each.record(tensors));
              const may = each.may?.(input, at), wanted = Object.entries(expectedOf.get(what)!);
              const actual = await Promise.all(wanted.map(([output]) => toArray(tensors[output])));
              wanted.forEach(([output, expected], index) => {
                const mayBe = (i: number) => may?.(output, i) ?? false;
                assertPattern(actual[index], expected, mayBe, `${name}: ${what}: ${output}`);
              });
            }
          }
        }
      }
      release(...Object.values(tensors));
    });
  }
}

/** What a case reads, f16 ones rounded. */
function inputsOf(
  { inputs }: Case,
  round = (values: Float32Array): Float32Array => values,
): Record<string, Float32Array | Uint32Array> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { data, half }]) => [
      name,
      half && data instanceof Float32Array ? round(data) : data,
    ]),
  );
}

function tensorsOf(on: Device, { inputs, outputs }: Case, dtype: "f32" | "f16"): Record<string, Tensor> {
  const typeOf = (name: string, half: boolean) =>
    inputs[name]?.data instanceof Uint32Array || name === "taps" ? "u32" : half ? dtype : "f32";
  return Object.fromEntries(
    Object.entries({ ...outputs, ...inputs }).map((
      [name, { shape, half }],
    ) => [name, empty(on, shape, "activations", typeOf(name, half))]),
  );
}

/**
 * The candidates that serve any of the problems. Those that take seconds to compile on a software driver are tested once there,
 * with f32: their other forms differ in loads and stores.
 */
function waysOf({ gpu: { info } }: Device, observed: readonly Observed[], dtype: "f32" | "f16"): Set<string> {
  const names = new Set<string>();
  for (const { operation, problem } of observed) {
    for (const candidate of operation.candidates as readonly Candidate<unknown>[]) {
      if (!candidate.supports(info, problem)) continue;
      const key = `${operation.name} ${candidate.name}`;
      const slow = candidate.name === "attention_subgroup" || candidate.hopeless?.(info, problem);
      if (info.software && slow && (dtype === "f16" || tested.has(key))) continue;
      names.add(candidate.name);
      tested.add(key);
    }
  }
  return names;
}

/** Fails unless the numbers that are not finite are where they should be; where NaN is expected, infinity is as loud. */
function assertPattern(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  may: (i: number) => boolean,
  what: string,
) {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    if (Number.isFinite(actual[i]) === Number.isFinite(expected[i])) {
      if (what.includes("NaN at") && Number.isNaN(expected[i]) && !Number.isNaN(actual[i])) {
        console.log("LOOSE", what, i, actual[i]);
      }
      continue;
    }
    if (!Number.isFinite(actual[i]) && may(i)) continue;
    assert.fail(`${what}[${i}] is ${actual[i]} where ${expected[i]} was expected`);
  }
}

test("every candidate of every operation has been through the table", async () => {
  const { info } = (await device()).gpu;
  const elsewhere = [...info.subgroupSize === 4 ? [] : ["matmul matmul_quad:quads"], "matmul matmul_matrix:matrix"];
  const untested = operations().flatMap(({ name, candidates }) =>
    candidates.map((candidate: Candidate<unknown>) => `${name} ${candidate.name}`)
  ).filter((name) => !tested.has(name));
  assert.deepEqual(untested, elsewhere);
});

/** By name, values that activations treat specially, and what is lost on them most easily. */
const special = [NaN, Infinity, -Infinity, -0, 0, 1, -1, 1e30, -1e30, 1e-30, -3, 20];

for (const count of [special.length, special.length - 1]) {
  test(`activations of ${count} special values are those of the float64 reference`, async () => {
    const on = await device();
    const x = Float32Array.from(special.slice(0, count)), zeros = tensor(on, [count], new Float32Array(count));
    const dy = Float32Array.from(x, () => 3);
    const xt = tensor(on, [count], x), y = dirty(on, [count]);
    const clipped = x.map((value) => value <= 0 ? 0 : value);
    relu(y, xt);
    assert.deepEqual(await toArray(y), clipped, "relu");
    reluBackward(y, tensor(on, [count], dy), xt);
    assert.deepEqual(await toArray(y), dy.map((value, i) => x[i] <= 0 ? 0 : value), "reluBackward");
    addRelu(y, xt, zeros);
    assert.deepEqual(await toArray(y), clipped, "addRelu");
    for (const form of ["erf", "tanh"] as const) {
      gelu(y, xt, form);
      assertNear(await toArray(y), gelus.gelu(x, form), `gelu ${form}`);
    }
    const gateUp = tensor(on, [count, 2], Float32Array.from([...x].flatMap((value) => [value, 1])));
    const gated = dirty(on, [count, 1]);
    swiglu(gated, gateUp);
    assertNear(await toArray(gated), swiglus.swiglu([...x].flatMap((value) => [value, 1]), 1), "swiglu");
  });
}

/** Each number for itself: beside 1e30 all others would be small. */
function assertNear(actual: ArrayLike<number>, expected: ArrayLike<number>, what: string) {
  for (let i = 0; i < expected.length; i++) {
    const near = Math.abs(actual[i] - expected[i]) <= 1e-6 * (1 + Math.abs(expected[i]));
    const bothNot = !Number.isFinite(actual[i]) && !Number.isFinite(expected[i]);
    assert.ok(
      near || bothNot || actual[i] === expected[i],
      `${what} of ${special[i]} is ${actual[i]}, not ${expected[i]}`,
    );
  }
}
