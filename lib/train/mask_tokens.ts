/** Masked language models: which tokens of a batch are to be predicted, and what stands in their place. */
import { ignored } from "../ops/loss.ts";
import { generator } from "../random.ts";
import type { Batch } from "./data.ts";
import type { Sequence } from "./packing.ts";
import type { Tokenizer } from "./tokenizer.ts";

/**
 * Of the tokens that are neither filler nor special (where there are none, of all that are no filler) 15 % are to be predicted, at least
 * one; of these 80 % are replaced by `mask`, 10 % by a random token, and 10 % stay (Devlin et al., arXiv 1810.04805, section 3.1).
 */
export function maskTokens(
  batch: Batch,
  sequences: readonly Sequence[],
  { vocabulary, special = new Set<number>() }: Pick<Tokenizer, "vocabulary" | "special">,
  mask: number,
  key: string,
): Batch {
  const random = generator(key);
  const inputs = Uint32Array.from(batch.inputs);
  const targets = new Uint32Array(inputs.length).fill(ignored);
  const asked = (at: number) => {
    targets[at] = inputs[at];
    const choice = random.uniform();
    if (choice < 0.8) inputs[at] = mask;
    else if (choice < 0.9) inputs[at] = random.integer(vocabulary);
  };
  const length = inputs.length / sequences.length;
  const used = sequences.flatMap(({ used }, i) => Array.from({ length: used }, (_, at) => i * length + at));
  let words = used.filter((at) => !special.has(inputs[at]));
  if (words.length === 0) words = used; // nothing but special ones
  // One is always asked for: a batch without a question has no loss.
  const always = random.integer(words.length);
  words.forEach((at, i) => {
    if (i === always || random.uniform() < 0.15) asked(at);
  });
  return { ...batch, inputs, targets };
}
