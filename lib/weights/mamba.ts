/** Mamba as Hugging Face has it (transformers, `MambaForCausalLM`), and as state-spaces published it, which differs in one name. */
import { type Family, same, transposed } from "./reference.ts";

/** Names and layouts of `MambaForCausalLM`. */
export const mambaFamily: Family = {
  title: "Mamba",
  references(parameter, { state }) {
    const { name, shape } = parameter;
    const [, block, part] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? ["", "", name];
    const reference = `backbone.layers.${block}.${part}`;
    switch (part) {
      case "embedding.weight":
        return same("backbone.embeddings.weight", parameter);
      case "mixer.in_proj.weight":
      case "mixer.x_proj.weight":
      case "mixer.dt_proj.weight":
      case "mixer.out_proj.weight":
        return transposed(reference, parameter);
      case "mixer.conv1d.weight": // one filter a channel, which PyTorch has as a convolution of groups of one
        return same(reference, parameter, [shape[0], 1, shape[1]]);
      case "mixer.A_log":
        return same(reference, parameter, [shape[0] / state, state]);
      case "mixer.conv1d.bias":
      case "mixer.dt_proj.bias":
      case "mixer.D":
        return same(reference, parameter);
      case "norm.weight":
        return same(block ? reference : "backbone.norm_f.weight", parameter);
    }
  },
  rename: (name) =>
    // The head is tied to the embedding, which state-spaces/mamba calls `embedding`.
    name === "lm_head.weight" || name === "backbone.embedding.weight" ? "backbone.embeddings.weight" : name,
  // state-spaces names fewer: its normalisations have 1e-5, and may not be RMSNorms.
  settings: ({ configuration: { epsilon } }) => [
    { names: ["model_type"], ours: "mamba" },
    { names: ["layer_norm_epsilon"], ours: epsilon, unsaid: 1e-5, field: "epsilon" },
    { names: ["hidden_act"], ours: "silu" },
    { names: ["rms_norm"], ours: true },
    { names: ["tie_word_embeddings", "tie_embeddings"], ours: true },
  ],
};
