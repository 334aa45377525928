/**
 * What the token before says of the next one: the bar that a language model has to get below before it can be said to have
 * learnt more than pairs of tokens. All in nats a token.
 */

/** How often each token followed each. */
export class Bigrams {
  readonly vocabulary: number;
  /** [vocabulary, vocabulary], rows of the token before. */
  readonly #counts: Float64Array;

  constructor(vocabulary: number) {
    this.vocabulary = vocabulary;
    this.#counts = new Float64Array(vocabulary * vocabulary);
  }

  /** Counts pairs; those with a target that is no token, behind the end of a document, are none. */
  add(inputs: ArrayLike<number>, targets: ArrayLike<number>): void {
    for (let i = 0; i < inputs.length; i++) {
      if (targets[i] < this.vocabulary) this.#counts[inputs[i] * this.vocabulary + targets[i]]++;
    }
  }

  /** Number of pairs. */
  get pairs(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  /**
   * H(next | current) of what was counted: what the best table of pairs has as its loss on the text that it was made of. Of a text that
   * it has not seen none can be as good on average.
   */
  entropy(): number {
    const { vocabulary: V } = this, counts = this.#counts;
    let sum = 0;
    for (let a = 0; a < V; a++) {
      const row = counts.subarray(a * V, (a + 1) * V), total = row.reduce((sum, count) => sum + count, 0);
      for (const count of row) if (count > 0) sum -= count * Math.log(count / total);
    }
    return sum / this.pairs;
  }

  /**
   * The mean loss of a table of pairs that has seen what was counted, on other pairs. What it has not seen is smoothed as Witten and Bell
   * do (IEEE Transactions on Information Theory 37, 1991, method C): a token that T different ones have followed gives them
   * c / (c + T), and T / (c + T) to how often tokens are there at all, which in turn knows each of them once more than counted.
   */
  loss(inputs: ArrayLike<number>, targets: ArrayLike<number>): number {
    const { vocabulary: V } = this, counts = this.#counts, pairs = this.pairs;
    const single = new Float64Array(V).fill(1 / (pairs + V));
    const totals = new Float64Array(V), kinds = new Float64Array(V);
    for (let a = 0; a < V; a++) {
      for (let b = 0; b < V; b++) {
        const count = counts[a * V + b];
        single[b] += count / (pairs + V);
        totals[a] += count;
        kinds[a] += Number(count > 0);
      }
    }
    let sum = 0, scored = 0;
    for (let i = 0; i < inputs.length; i++) {
      const a = inputs[i], b = targets[i];
      if (b >= V) continue;
      const seen = totals[a] + kinds[a];
      sum -= Math.log(seen === 0 ? single[b] : (counts[a * V + b] + kinds[a] * single[b]) / seen);
      scored++;
    }
    return sum / scored;
  }
}
