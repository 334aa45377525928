/**
 * A number that is not finite is never hidden: one NaN or infinity in any input of any operation, by every candidate, shows in
 * every element that depends on it, and in no other.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { type Candidate, type Observed, observeProblems } from "../../lib/ops/choice.ts";
import { gelu } from "../../lib/ops/gelu.ts";
import { addRelu, relu, reluBackward } from "../../lib/ops/relu.ts";
import { swiglu } from "../../lib/ops/swiglu.ts";
import { empty, release, sizeOf, type Tensor, toArray, writeArray } from "../../lib/tensor.ts";
import { generator } from "../../lib/random.ts";
import * as gelus from "../reference/gelu.ts";
import * as swiglus from "../reference/swiglu.ts";
import { attentionCase, type Case, cases } from "./not_finite_cases.ts";
import { close, device, dirty, everyOperation, tensor, withCandidate } from "./support.ts";

after(close);

const planted = [NaN, Infinity, -Infinity];

/** Candidates that have been through the table, as "operation candidate". */
const tested = new Set<string>();

for (const dtype of ["f32", "f16"] as const) {
  for (const each of cases) {
    test(`${each.name} in ${dtype} hides no number that is not finite, and spreads none`, async (t) => {
      const on = await device();
      if (dtype === "f16" && !on.gpu.info.f16) return t.skip("this device has no f16");
      const tensors = tensorsOf(on, each, dtype);
      const data = dtype === "f32" ? inputsOf(each) : inputsOf(each, (values) => fromHalf(toHalf(values)));
      write(tensors, data);
      const observed = await observeProblems(on.gpu, () => each.record(tensors));
      const plants = plantsOf(each, data);
      for (const name of waysOf(on, observed, dtype)) {
        for (const { input, at, value, given, expected } of plants) {
          write(tensors, given);
          withCandidate(name, () => each.record(tensors));
          const outputs = Object.keys(expected), may = each.may?.(input, at);
          const actual = await Promise.all(outputs.map((output) => toArray(tensors[output])));
          outputs.forEach((output, index) => {
            // In a gradient it may be infinite: exp() of NaN is, on SwiftShader. The names of gradients begin with d.
            const nan = Number.isNaN(value) && !output.startsWith("d");
            const what = `${name}: ${value} at ${at} of ${input}: ${output}`;
            assertPattern(actual[index], expected[output], nan, (i) => may?.(output, i) ?? false, what);
          });
        }
      }
      release(...Object.values(tensors));
    });
  }
}

/** Each of the numbers in some places of every input, one after the other, and what is expected then. */
function plantsOf(each: Case, data: ReturnType<typeof inputsOf>) {
  const random = generator(each.name);
  return Object.entries(data).flatMap(([input, values]) => {
    if (values instanceof Uint32Array) return [];
    const places = [random.integer(values.length), random.integer(values.length), ...each.inputs[input].places ?? []];
    return places.flatMap((at) =>
      planted.map((value) => {
        const given = { ...data, [input]: values.with(at, value) };
        return { input, at, value, given, expected: each.expected(given) };
      })
    );
  });
}

/** Gives inputs their numbers, and everything else others, which must not stay. */
function write(tensors: Readonly<Record<string, Tensor>>, data: ReturnType<typeof inputsOf>) {
  for (const [name, tensor] of Object.entries(tensors)) {
    if (name in data) writeArray(tensor, data[name]);
    else if (tensor.dtype !== "u32") writeArray(tensor, new Float32Array(sizeOf(tensor.shape)).fill(7));
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

/**
 * Fails unless the numbers that are not finite are where they should be. With `nan` a NaN must be one; else infinity will do, as
 * it is as loud.
 */
function assertPattern(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  nan: boolean,
  may: (i: number) => boolean,
  what: string,
) {
  assert.equal(actual.length, expected.length, what);
  for (let i = 0; i < expected.length; i++) {
    const right = nan && Number.isNaN(expected[i])
      ? Number.isNaN(actual[i])
      : Number.isFinite(actual[i]) === Number.isFinite(expected[i]);
    if (right || (!Number.isFinite(actual[i]) && may(i))) continue;
    assert.fail(`${what}[${i}] is ${actual[i]} where ${expected[i]} was expected`);
  }
}

test("every operation, and on a software driver every candidate, has been through the table", async (t) => {
  const { info } = (await device()).gpu;
  // What looks for such numbers has tests of its own, in look.test.ts.
  const here = (await everyOperation()).filter(({ name }) => name !== "look");
  const all = here.map(({ name, candidates }) => candidates.map((each) => `${name} ${each.name}`));
  assert.deepEqual(all.filter((names) => !names.some((name) => tested.has(name))), []);
  if (!info.software) return t.skip("which candidates serve a GPU is the GPU's matter");
  const elsewhere = [...info.subgroupSize === 4 ? [] : ["matmul matmul_quad:quads"], "matmul matmul_matrix:matrix"];
  assert.deepEqual(all.flat().filter((name) => !tested.has(name)), elsewhere);
});

test("attention() of a row whose every score is -Infinity is NaN, by every candidate, and no mean of what it must not see", async () => {
  const on = await device();
  const each = attentionCase, tensors = tensorsOf(on, each, "f32"), data = inputsOf(each);
  const width = each.inputs.qkv.shape[1], row = 5, first = 0; // its first query head
  const qkv = Float32Array.from(data.qkv);
  for (let key = 8; key < qkv.length; key += width) qkv[key] = 1; // the first feature of every key
  qkv[row * width] = -Infinity;
  const given = { ...data, qkv };
  const { out } = each.expected(given);
  assert.ok(Number.isNaN(out[row * 8]) && Number.isFinite(out[row * 8 + 4]), "the other head is fine");
  for (const name of ["plain", "vec4", "group", "composed", "attention_subgroup", "attention_workgroup"]) {
    write(tensors, given);
    withCandidate(name, () => each.record(tensors));
    assertPattern(await toArray(tensors.out), out, false, () => false, `${name}: out`);
    const gradient = await toArray(tensors.dqkv);
    assert.ok(!Number.isFinite(gradient[row * width + first]), `${name}: the query's gradient`);
  }
  release(...Object.values(tensors));
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
