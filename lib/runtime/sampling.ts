/** What the next token is: drawn from what the logits say, in float64 on the host. */
import type { Generator } from "../random.ts";
import { optional, positive, real, type Rule, type Rules } from "../rules.ts";

/** How a token is drawn. What is left out does nothing. */
export interface SamplingOptions {
  /** What logits are divided by, 0 or more; 0 takes the likeliest token, the first of several alike. 1 by default. */
  readonly temperature?: number;
  /** How many tokens may be drawn, the likeliest, of those alike the first. */
  readonly topK?: number;
  /**
   * Probability that the tokens which may be drawn have together at least, above 0 and at most 1: the fewest that reach it, the likeliest
   * (Holtzman et al., arXiv 1904.09751). After `topK`, of whose tokens the probabilities then add up to 1.
   */
  readonly topP?: number;
}

const share: Rule = {
  right: "a number above 0, and 1 at most",
  accepts: (value) => typeof value === "number" && value > 0 && value <= 1,
};

/** What {@link SamplingOptions} may be. */
export const samplingRules: Rules<SamplingOptions> = {
  temperature: optional(real({ least: 0 })),
  topK: optional(positive),
  topP: optional(share),
};

/**
 * The probability of each token to be drawn, 0 of those that may not be.
 *
 * @throws {Error} When a logit is NaN or positively infinite, or none is finite.
 */
export function samplingProbabilities(
  logits: ArrayLike<number>,
  { temperature = 1, topK, topP }: SamplingOptions = {},
): Float64Array {
  let highest = -Infinity, likeliest = -1;
  for (let token = 0; token < logits.length; token++) {
    const logit = logits[token];
    if (!(logit < Infinity)) throw new Error(`the logit of token ${token} is ${logit}`);
    if (logit > highest) [highest, likeliest] = [logit, token];
  }
  if (likeliest < 0) throw new Error("no logit is finite");
  const weights = new Float64Array(logits.length);
  if (temperature === 0) {
    weights[likeliest] = 1;
    return weights;
  }
  for (let token = 0; token < logits.length; token++) {
    weights[token] = Math.exp((logits[token] - highest) / temperature);
  }
  if (topK !== undefined && topK < logits.length) {
    // By logits: different ones may have equal weights, far from the highest.
    keepOnly(weights, Float64Array.from(logits), topK);
  }
  if (topP !== undefined && topP < 1) {
    const sorted = weights.toSorted(), needed = topP * sum(weights);
    let count = 0, reached = 0;
    while (reached < needed && count < sorted.length) reached += sorted[sorted.length - ++count];
    keepOnly(weights, weights.slice(), count);
  }
  const total = sum(weights);
  return weights.map((weight) => weight / total);
}

/** Makes all weights 0 but those of the `count` highest of `order`, of those alike the first. */
function keepOnly(weights: Float64Array, order: Float64Array, count: number): void {
  const least = order.toSorted()[order.length - count];
  let alike = count;
  for (const value of order) if (value > least) alike--;
  for (const [token, value] of order.entries()) {
    if (value > least || (value === least && alike-- > 0)) continue;
    weights[token] = 0;
  }
}

/** Draws a token; one number of `random` is taken, whatever the options. */
export function sampleToken(logits: ArrayLike<number>, options: SamplingOptions, random: Generator): number {
  const probabilities = samplingProbabilities(logits, options), drawn = random.uniform();
  let below = 0, last = 0;
  for (const [token, probability] of probabilities.entries()) {
    if (probability === 0) continue;
    below += probability;
    last = token;
    if (drawn < below) return token;
  }
  return last; // where rounding has left the sum a little below 1
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
