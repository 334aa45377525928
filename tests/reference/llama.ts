/** The whole LLaMa-like model in float64, forward only: gradients come from finite differences of its loss. */
import type { LlamaConfiguration } from "../../lib/models/llama.ts";
import { hash } from "../../lib/random.ts";
import type { Batch } from "../../lib/train/data.ts";
import { dropout } from "./dropout.ts";
import { frequencies } from "./rope.ts";

/** Parameter values by name. */
export type Parameters = ReadonlyMap<string, ArrayLike<number>>;

/** Mean cross-entropy over all tokens of the batch. Biases are added where there are any. */
export function llamaLoss(configuration: LlamaConfiguration, parameters: Parameters, batch: Batch): number {
  const { width, blocks, heads, kvHeads = heads, headSize = width / heads, hidden, vocabulary, length } = configuration;
  const { epsilon = 1e-5, ropeTheta = 10_000, ropeScaling, tied = false, dropout: rate = 0 } = configuration;
  const norm = (row: number[], gain: ArrayLike<number>) => rmsNorm(row, gain, epsilon);
  const packed = (heads + 2 * kvHeads) * headSize;
  const weight = (name: string) => {
    const values = parameters.get(`${name}.weight`);
    if (!values) throw new Error(`no parameter ${name}.weight`);
    return values;
  };
  /** What dropout leaves of row `t` of the batch. */
  const drop = (name: string, row: number[], t: number) => {
    if (rate === 0) return row;
    return [...dropout(row, width, { rate, seed: batch.seed ?? 0, salt: hash(`${name}.dropout`), firstRow: t })];
  };
  let total = 0;
  for (let sequence = 0; sequence < batch.samples; sequence++) {
    const ids = batch.inputs.subarray(sequence * length, (sequence + 1) * length);
    const table = weight("embedding");
    const first = sequence * length;
    let x = [...ids].map((id, t) =>
      drop("embedding", Array.from({ length: width }, (_, c) => table[id * width + c]), first + t)
    );
    for (let block = 0; block < blocks; block++) {
      const name = `blocks.${block}`;
      const normed = x.map((row) => norm(row, weight(`${name}.attention.norm`)));
      const bias = parameters.get(`${name}.attention.qkv.bias`);
      const qkv = normed.map((row) =>
        project(row, weight(`${name}.attention.qkv`), packed).map((value, c) => value + (bias?.[c] ?? 0))
      );
      const context = attend(qkv, heads, kvHeads, frequencies(headSize, { base: ropeTheta, scaling: ropeScaling }));
      x = x.map((row, t) => {
        const out = project(context[t], weight(`${name}.attention.out`), width);
        return sum(row, drop(`${name}.attention`, out, first + t));
      });
      x = x.map((row, t) => {
        const inner = project(norm(row, weight(`${name}.mlp.norm`)), weight(`${name}.mlp.gate_up`), 2 * hidden);
        const gated = inner.slice(0, hidden).map((gate, c) => gate / (1 + Math.exp(-gate)) * inner[hidden + c]);
        return sum(row, drop(`${name}.mlp`, project(gated, weight(`${name}.mlp.down`), width), first + t));
      });
    }
    x.forEach((row, t) => {
      const last = norm(row, weight("norm"));
      const logits = tied
        ? Array.from({ length: vocabulary }, (_, n) => last.reduce((all, v, k) => all + v * table[n * width + k], 0))
        : project(last, weight("head"), vocabulary);
      const largest = Math.max(...logits);
      const logSumExp = largest + Math.log(logits.reduce((all, logit) => all + Math.exp(logit - largest), 0));
      total += logSumExp - logits[batch.targets[sequence * length + t]];
    });
  }
  return total / batch.inputs.length;
}

function rmsNorm(row: number[], gain: ArrayLike<number>, epsilon: number): number[] {
  const meanSquare = row.reduce((all, value) => all + value * value, 0) / row.length;
  return row.map((value, c) => gain[c] * value / Math.sqrt(meanSquare + epsilon));
}

function project(row: number[], weight: ArrayLike<number>, outputs: number): number[] {
  return Array.from(
    { length: outputs },
    (_, n) => row.reduce((all, value, k) => all + value * weight[k * outputs + n], 0),
  );
}

function sum(a: number[], b: number[]): number[] {
  return a.map((value, c) => value + b[c]);
}

/** Causal attention over one sequence of rows [q | k | v], rotary positions included. */
function attend(qkv: number[][], heads: number, kvHeads: number, frequencies: readonly number[]): number[][] {
  const half = frequencies.length, size = 2 * half;
  const part = (t: number, which: number, head: number) => {
    const index = which === 0 ? head : heads + (which - 1) * kvHeads + Math.floor(head * kvHeads / heads);
    return qkv[t].slice(index * size, (index + 1) * size);
  };
  const rotate = (vector: number[], t: number) =>
    vector.map((value, c) => {
      const angle = t * frequencies[c % half];
      const partner = c < half ? -vector[c + half] : vector[c - half];
      return value * Math.cos(angle) + partner * Math.sin(angle);
    });
  return qkv.map((_, t) =>
    Array.from({ length: heads }, (_, head) => {
      const query = rotate(part(t, 0, head), t);
      const scores = Array.from({ length: t + 1 }, (_, s) =>
        rotate(part(s, 1, head), s).reduce((all, value, c) => all + value * query[c], 0) / Math.sqrt(size));
      const largest = Math.max(...scores);
      const weights = scores.map((score) =>
        Math.exp(score - largest)
      );
      const total = weights.reduce((all, value) => all + value, 0);
      const mixed = new Array<number>(size).fill(0);
      weights.forEach((value, s) => part(s, 2, head).forEach((v, c) => mixed[c] += value / total * v));
      return mixed;
    }).flat()
  );
}
