/** BERT with its masked-token head as Hugging Face has it (transformers, `BertForMaskedLM`). */
import { UserError } from "../errors.ts";
import { bert, type BertConfiguration } from "../models/bert.ts";
import { positive, real } from "../rules.ts";
import { columns, type Family, same } from "./reference.ts";
import { above0, absent, constant, fixed, only, size, trained } from "./said.ts";

const share = real({ least: 0, below: 1 });

/** Where all of Google's vocabularies have [MASK]; no configuration says it. */
const usualMask = 103;

/** Names and layouts of `BertForMaskedLM`. */
export const bertFamily: Family = {
  title: "BERT",
  types: ["bert"],
  settings: () => [
    size("vocab_size", "vocabulary", 30_522),
    size("hidden_size", "width", 768),
    size("num_hidden_layers", "blocks", 12),
    size("intermediate_size", "hidden", 3072),
    size("max_position_embeddings", "positions", 512),
    size("type_vocab_size", "types", 2),
    trained("hidden_dropout_prob", share, 0.1, "dropout"),
    trained("attention_probs_dropout_prob", share, 0.1, "attentionDropout"),
    constant("layer_norm_eps", "epsilon", above0, 1e-12),
    constant("num_attention_heads", "heads", positive, 12),
    fixed("hidden_act", only("gelu")),
    fixed("position_embedding_type", only("absolute")),
    fixed("is_decoder", only(false)),
    fixed("add_cross_attention", only(false)),
    fixed("tie_word_embeddings", only(true)),
    fixed("quantization_config", absent),
  ],
  values: ({ configuration }) => configuration,
  make(name, { values: { attentionDropout, ...values }, length, mask }) {
    const { vocabulary, dropout } = values as { vocabulary: number; dropout: number };
    if (attentionDropout !== dropout) {
      throw new UserError(
        `attention_probs_dropout_prob must be hidden_dropout_prob, which is ${dropout}, not ${attentionDropout}`,
      );
    }
    const masked = mask ?? Math.min(usualMask, vocabulary - 1);
    return bert(name, { ...values, length, mask: masked } as unknown as BertConfiguration);
  },
  references(parameter) {
    const [, block, part] = /^blocks\.(\d+)\.(.+)$/.exec(parameter.name) ?? ["", "", parameter.name];
    const layer = `bert.encoder.layer.${block}`;
    switch (part) {
      case "embeddings.token.weight":
        return same("bert.embeddings.word_embeddings.weight", parameter);
      case "embeddings.position.weight":
        return same("bert.embeddings.position_embeddings.weight", parameter);
      case "embeddings.type.weight":
        return same("bert.embeddings.token_type_embeddings.weight", parameter);
    }
    const [, module, kind] = /^(.+)\.(weight|bias)$/.exec(part) ?? [];
    switch (module) {
      case "embeddings.norm":
        return same(`bert.embeddings.LayerNorm.${kind}`, parameter);
      case "attention.qkv": {
        const names = ["query", "key", "value"].map((which) => `${layer}.attention.self.${which}.${kind}`);
        return columns(names, parameter);
      }
      case "attention.out":
        return columns([`${layer}.attention.output.dense.${kind}`], parameter);
      case "attention.norm":
        return same(`${layer}.attention.output.LayerNorm.${kind}`, parameter);
      case "mlp.up":
        return columns([`${layer}.intermediate.dense.${kind}`], parameter);
      case "mlp.down":
        return columns([`${layer}.output.dense.${kind}`], parameter);
      case "mlp.norm":
        return same(`${layer}.output.LayerNorm.${kind}`, parameter);
      case "head.dense":
        return columns([`cls.predictions.transform.dense.${kind}`], parameter);
      case "head.norm":
        return same(`cls.predictions.transform.LayerNorm.${kind}`, parameter);
      case "head.decoder": // its weight is tied to the token table, which stands for both in files
        return same(kind === "bias" ? "cls.predictions.bias" : "cls.predictions.decoder.weight", parameter);
    }
  },
  rename(name, tied) {
    // The next-sentence head and the buffers of older versions, which a masked language model has no use for.
    if (/^(bert\.pooler|cls\.seq_relationship)\.|^bert\.embeddings\.(position|token_type)_ids$/.test(name)) {
      return undefined;
    }
    const other: Record<string, string> = {
      ...tied ? { "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight" } : {},
      "cls.predictions.decoder.bias": "cls.predictions.bias",
    };
    // The first published checkpoints have TensorFlow's names for gain and bias.
    return other[name] ??
      name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias");
  },
};
