import assert from "node:assert/strict";
import { test } from "node:test";
import { Bigrams } from "../../bench/bigrams.ts";
import { generator } from "../../lib/random.ts";

const close = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) < 1e-12, `${actual}, and not ${expected}`);

function counted(vocabulary: number, tokens: readonly number[]): Bigrams {
  const bigrams = new Bigrams(vocabulary);
  bigrams.add(tokens.slice(0, -1), tokens.slice(1));
  return bigrams;
}

test("the entropy of pairs is 0 where the next token is sure, and ln V where each is as likely", () => {
  assert.equal(counted(3, [0, 1, 2, 0, 1, 2, 0]).entropy(), 0);
  const bigrams = new Bigrams(5); // every pair once
  for (let a = 0; a < 5; a++) for (let b = 0; b < 5; b++) bigrams.add([a], [b]);
  close(bigrams.entropy(), Math.log(5));
});

test("the entropy of pairs is H(pair) - H(first) of random tokens", () => {
  const random = generator("tokens"), tokens = Array.from({ length: 400 }, () => random.integer(2) + random.integer(4));
  const entropy = (names: readonly string[]) => {
    const shares = [...new Set(names)].map((name) => names.filter((each) => each === name).length / names.length);
    return shares.reduce((sum, share) => sum - share * Math.log(share), 0);
  };
  const firsts = tokens.slice(0, -1);
  const pairs = entropy(firsts.map((token, at) => `${token} ${tokens[at + 1]}`));
  close(counted(8, tokens).entropy(), pairs - entropy(firsts.map(String)));
});

test("smoothed pairs are distributions, also behind tokens that were never seen, and have the values of Witten and Bell", () => {
  const bigrams = counted(4, [0, 1, 0, 1, 0, 2, 0, 1]); // 0 is followed by 1 three times and by 2 once, 1 and 2 by 0 alone
  for (let a = 0; a < 4; a++) {
    close([0, 1, 2, 3].reduce((sum, b) => sum + Math.exp(-bigrams.loss([a], [b])), 0), 1);
  }
  const single = [4 / 11, 4 / 11, 2 / 11, 1 / 11]; // of 7 pairs' second tokens, each once more
  close(bigrams.loss([0], [1]), -Math.log((3 + 2 * single[1]) / (4 + 2)));
  close(bigrams.loss([0], [3]), -Math.log(2 * single[3] / (4 + 2)));
  close(bigrams.loss([3], [0]), -Math.log(single[0]));
  close(bigrams.loss([0, 3], [3, 0]), (bigrams.loss([0], [3]) + bigrams.loss([3], [0])) / 2);
});

test("what is behind the end of a document is no pair", () => {
  const bigrams = new Bigrams(3), ignored = 2 ** 32 - 1;
  bigrams.add([0, 1, 2], [1, ignored, 0]);
  assert.equal(bigrams.pairs, 2);
  assert.equal(bigrams.loss([0, 1], [1, ignored]), bigrams.loss([0], [1]));
});
