/** BERT with its masked-token head as Hugging Face has it (transformers, `BertForMaskedLM`). */
import { columns, type Family, same } from "./reference.ts";

/** Names and layouts of `BertForMaskedLM`. */
export const bertFamily: Family = {
  title: "BERT",
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
      case "head.decoder": // its weight is tied to the token table, which stands for both
        return kind === "bias" ? same("cls.predictions.bias", parameter) : undefined;
    }
  },
  rename(name) {
    // The next-sentence head and the buffers of older versions, which a masked language model has no use for.
    if (/^(bert\.pooler|cls\.seq_relationship)\.|^bert\.embeddings\.(position|token_type)_ids$/.test(name)) {
      return undefined;
    }
    const other: Record<string, string> = {
      "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
      "cls.predictions.decoder.bias": "cls.predictions.bias",
    };
    // The first published checkpoints have TensorFlow's names for gain and bias.
    return other[name] ??
      name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias");
  },
  settings: ({ configuration: { epsilon, heads } }) => [
    { names: ["model_type"], ours: "bert" },
    { names: ["layer_norm_eps"], ours: epsilon, unsaid: 1e-12, field: "epsilon" },
    { names: ["num_attention_heads"], ours: heads, unsaid: 12, field: "heads" },
    { names: ["hidden_act"], ours: "gelu" },
    { names: ["position_embedding_type"], ours: "absolute" },
    { names: ["is_decoder"], ours: false },
    { names: ["tie_word_embeddings"], ours: true },
  ],
};
