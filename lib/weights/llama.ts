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
  // Older checkpoints store the rotation's frequencies, which follow from the shape.
  rename: (name) => name.endsWith(".rotary_emb.inv_freq") ? undefined : name,
};
