import assert from "node:assert/strict";
import { test } from "node:test";
import { generator } from "../../lib/random.ts";
import { sampleToken, type SamplingOptions, samplingProbabilities } from "../../lib/runtime/sampling.ts";

const random = generator(11);
const logits = Float32Array.from({ length: 40 }, () => 2 * random.normal());
logits[7] = logits[3]; // alike
logits[20] = -Infinity; // never drawn

/** The definition, written to be read: sorted by logit, then by id. */
function expected(logits: Float32Array, { temperature = 1, topK = Infinity, topP = 1 }: SamplingOptions): number[] {
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
  const normalised = (ids: number[]) => {
    const sum = ids.map((id) => Math.exp(logits[id] / temperature)).reduce((a, b) => a + b);
    return new Map(ids.map((id) => [id, Math.exp(logits[id] / temperature) / sum]));
  };
  let left = normalised(order.slice(0, topK));
  const nucleus: number[] = [];
  let reached = 0;
  for (const [id, probability] of left) {
    if (reached >= topP) break;
    nucleus.push(id);
    reached += probability;
  }
  left = normalised(nucleus);
  return [...logits.keys()].map((id) => left.get(id) ?? 0);
}

const cases: SamplingOptions[] = [
  {},
  { temperature: 0.3 },
  { temperature: 5 },
  { topK: 1 },
  { topK: 4 },
  { topK: 40 },
  { topK: 1000 },
  { topP: 1e-9 },
  { topP: 0.5 },
  { topP: 0.9, temperature: 2 },
  { topP: 1 },
  { topK: 6, topP: 0.8, temperature: 0.7 },
];
for (const options of cases) {
  test(`the probabilities of tokens with ${JSON.stringify(options)} are those of the definition in float64`, () => {
    const actual = samplingProbabilities(logits, options);
    for (const [id, probability] of expected(logits, options).entries()) {
      assert.ok(Math.abs(actual[id] - probability) < 1e-12, `token ${id}: ${actual[id]} instead of ${probability}`);
    }
  });

  test(`tokens drawn with ${JSON.stringify(options)} come as often as that`, () => {
    const probabilities = expected(logits, options), counts = new Float64Array(logits.length), draws = 4000;
    const random = generator(3);
    for (let i = 0; i < draws; i++) counts[sampleToken(logits, options, random)]++;
    for (const [id, probability] of probabilities.entries()) {
      if (probability === 0) assert.equal(counts[id], 0, `token ${id} may not be drawn`);
      const deviation = Math.sqrt(draws * probability * (1 - probability));
      assert.ok(Math.abs(counts[id] - draws * probability) <= 5 * deviation + 1e-6, `token ${id}: ${counts[id]}`);
    }
    assert.equal(random.drawn, draws, "one number a token");
  });
}

test("of tokens alike the first are kept, and temperature 0 takes the first", () => {
  const alike = Float32Array.of(1, 3, 3, 2, 3);
  assert.deepEqual([...samplingProbabilities(alike, { topK: 2 })], [0, 0.5, 0.5, 0, 0]);
  assert.deepEqual([...samplingProbabilities(alike, { topP: 0.3 })], [0, 0.5, 0.5, 0, 0]);
  assert.deepEqual([...samplingProbabilities(alike, { temperature: 0 })], [0, 1, 0, 0, 0]);
});

test("logits far apart, and all temperatures, give probabilities that add up to 1", () => {
  for (const temperature of [0, 1e-300, 1e-3, 1, 1e300]) {
    const all = samplingProbabilities(Float32Array.of(3e38, -3e38, 0), { temperature, topK: 2 });
    assert.ok(Math.abs(all.reduce((a, b) => a + b) - 1) < 1e-12, `${temperature}: ${all}`);
    assert.equal(all[1], 0);
  }
});

test("logits that are no numbers are refused, and minus infinity alone is", () => {
  assert.throws(() => samplingProbabilities(Float32Array.of(1, NaN)), /the logit of token 1 is NaN/);
  assert.throws(() => samplingProbabilities(Float32Array.of(Infinity, 1)), /the logit of token 0 is Infinity/);
  assert.throws(() => samplingProbabilities(Float32Array.of(-Infinity)), /no logit is finite/);
});
