/** LLaMa as Hugging Face has it (transformers, `LlamaForCausalLM`), grouped queries included. */
import { columns, type Family, same, transposed } from "./reference.ts";

/** Names and layouts of `LlamaForCausalLM`. */
export const llamaFamily: Family = {
  title: "LLaMa",
  references(parameter) {
    const { name, shape } = parameter;
    const [, block, part] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? ["", "", name];
    const layer = `model.layers.${block}`;
    switch (part) {
      case "embedding.weight":
        return same("model.embed_tokens.weight", parameter);
      case "attention.norm.weight":
        return same(`${layer}.input_layernorm.weight`, parameter);
      case "attention.qkv.weight": {
        // Queries are as wide as the model; keys and values share the rest, less with grouped queries.
        const [width, all] = shape;
        const names = ["q", "k", "v"].map((which) => `${layer}.self_attn.${which}_proj.weight`);
        return columns(names, parameter, [width, (all - width) / 2, (all - width) / 2]);
      }
      case "attention.out.weight":
        return transposed(`${layer}.self_attn.o_proj.weight`, parameter);
      case "mlp.norm.weight":
        return same(`${layer}.post_attention_layernorm.weight`, parameter);
      case "mlp.gate_up.weight":
        return columns([`${layer}.mlp.gate_proj.weight`, `${layer}.mlp.up_proj.weight`], parameter);
      case "mlp.down.weight":
        return transposed(`${layer}.mlp.down_proj.weight`, parameter);
      case "norm.weight":
        return same("model.norm.weight", parameter);
      case "head.weight":
        return transposed("lm_head.weight", parameter);
    }
  },
  rename(name, tied) {
    // Older checkpoints store the rotation's frequencies, which follow from the shape.
    if (name.endsWith(".rotary_emb.inv_freq")) return undefined;
    return tied && name === "lm_head.weight" ? "model.embed_tokens.weight" : name;
  },
  settings: ({ configuration: { epsilon, ropeTheta, heads, kvHeads }, tied }) => [
    { names: ["model_type"], ours: "llama" },
    { names: ["rms_norm_eps"], ours: epsilon, unsaid: 1e-6, field: "epsilon" },
    // transformers 5 has the rotation's constants in one object, older versions the base apart.
    { names: ["rope_theta", "rope_parameters.rope_theta"], ours: ropeTheta, unsaid: 10_000, field: "ropeTheta" },
    {
      names: ["rope_scaling.rope_type", "rope_scaling.type", "rope_parameters.rope_type", "rope_parameters.type"],
      ours: "default", // long contexts stretch the rotation, Llama 3.1 and later with "llama3"
    },
    { names: ["tie_word_embeddings"], ours: (tied ?? []).length > 0, unsaid: false, field: "tied" },
    { names: ["num_attention_heads"], ours: heads, field: "heads" },
    { names: ["num_key_value_heads"], ours: kvHeads, field: "kvHeads" },
    { names: ["hidden_act"], ours: "silu" },
  ],
};
