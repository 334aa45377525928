/** Mamba as Hugging Face has it (transformers, `MambaForCausalLM`), and as state-spaces published it, which differs in one name. */
import { UserError } from "../errors.ts";
import { mamba, type MambaConfiguration } from "../models/mamba.ts";
import { optional, positive, type Rule } from "../rules.ts";
import { convTaps } from "../ops/causal_conv.ts";
import { type Family, same, transposed } from "./reference.ts";
import { above0, absent, constant, fixed, only, size } from "./said.ts";

const rankRule: Rule = {
  right: `${positive.right}, or "auto"`,
  accepts: (value) => value === "auto" || positive.accepts(value),
};

/** Names and layouts of `MambaForCausalLM`. */
export const mambaFamily: Family = {
  title: "Mamba",
  types: ["mamba"],
  // state-spaces names fewer: its normalisations have 1e-5, and may not be RMSNorms.
  settings: () => [
    size("vocab_size", "vocabulary", 50_280),
    size("hidden_size", "width", 768),
    size("num_hidden_layers", "blocks", 32),
    size("state_size", "state", 16),
    size("expand", "expand", 2),
    { ...size("intermediate_size", "inner", 0), rule: optional(positive), unsaid: undefined },
    { ...size("time_step_rank", "rank", 0), rule: rankRule, unsaid: "auto" },
    constant("layer_norm_epsilon", "epsilon", above0, 1e-5),
    fixed("hidden_act", only("silu", "swish")),
    fixed("conv_kernel", only(convTaps)),
    fixed("use_conv_bias", only(true)),
    fixed("use_bias", only(false)),
    fixed("rms_norm", only(true)),
    fixed(["tie_word_embeddings", "tie_embeddings"], only(true)),
    fixed("quantization_config", absent),
  ],
  values: ({ configuration }) => configuration,
  make(name, { values: { inner, rank, ...values }, length }) {
    const { width, expand } = values as { width: number; expand: number };
    if (inner !== undefined && inner !== expand * width) {
      throw new UserError(`intermediate_size must be expand x hidden_size, which is ${expand * width}, not ${inner}`);
    }
    const ranks = rank === "auto" ? Math.ceil(width / 16) : rank;
    return mamba(name, { ...values, rank: ranks, length } as unknown as MambaConfiguration);
  },
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
};
