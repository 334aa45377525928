/** A whole BERT with its masked-token head in float64, forward only: gradients come from finite differences of its loss. */
import type { BertConfiguration } from "../../lib/models/bert.ts";
import type { Batch } from "../../lib/train/data.ts";
import { hash } from "../../lib/random.ts";
import { attention } from "./attention.ts";
import { addBias } from "./bias.ts";
import { dropout } from "./dropout.ts";
import { embedding } from "./embedding.ts";
import { gelu } from "./gelu.ts";
import { layerNorm } from "./layer_norm.ts";
import { project, transpose } from "./linear.ts";
import { crossEntropy } from "./loss.ts";

/** Mean cross-entropy over the batch's targets that count, with the parameters by name. */
export function bertLoss(
  configuration: BertConfiguration,
  parameters: ReadonlyMap<string, ArrayLike<number>>,
  batch: Batch,
): number {
  const { width, blocks, heads, hidden, vocabulary, length, dropout: rate } = configuration;
  const values = (name: string) => parameters.get(name)!;
  const linear = (name: string, x: ArrayLike<number>, inputs: number) =>
    addBias(project(x, values(`${name}.weight`), inputs), values(`${name}.bias`));
  const norm = (name: string, x: ArrayLike<number>) =>
    layerNorm(x, values(`${name}.weight`), values(`${name}.bias`), configuration.epsilon ?? 1e-12).y;
  const drop = (name: string, x: ArrayLike<number>, width: number) =>
    dropout(x, width, { rate, seed: batch.seed ?? 0, salt: hash(name), firstRow: 0 });
  const sum = (a: ArrayLike<number>, b: ArrayLike<number>) => Float64Array.from(a, (value, i) => value + b[i]);

  const position = values("embeddings.position.weight"), type = values("embeddings.type.weight");
  const embedded = embedding(Array.from(batch.inputs), values("embeddings.token.weight"), width)
    .map((value, i) => value + position[i % (length * width)] + type[i % width]);
  let x = drop("embeddings.dropout", norm("embeddings.norm", embedded), width);

  const { samples: sequences, lengths } = batch;
  const ones = new Float64Array(sequences * heads * length * length).fill(1);
  const shape = { sequences, length, heads, headSize: width / heads, causal: false };
  for (let block = 0; block < blocks; block++) {
    const name = `blocks.${block}.attention`;
    const factors = drop(name, ones, length);
    const { out } = attention(linear(`${name}.qkv`, x, width), shape, { lengths, factors });
    x = norm(`${name}.norm`, sum(x, drop(`${name}.dropout`, linear(`${name}.out`, out, width), width)));
    const mlp = `blocks.${block}.mlp`;
    const inside = linear(`${mlp}.down`, gelu(linear(`${mlp}.up`, x, width), "erf"), hidden);
    x = norm(`${mlp}.norm`, sum(x, drop(`${mlp}.dropout`, inside, width)));
  }
  const features = norm("head.norm", gelu(linear("head.dense", x, width), "erf"));
  const decoder = transpose(values("head.decoder.weight"), width);
  const logits = addBias(project(features, decoder, width), values("head.decoder.bias"));
  const { losses } = crossEntropy(logits, batch.targets, vocabulary);
  return losses.reduce((a, b) => a + b) / batch.targets.filter((target) => target < vocabulary).length;
}
