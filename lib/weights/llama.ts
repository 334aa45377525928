/**
 * LLaMa as Hugging Face has it (transformers, `LlamaForCausalLM`), grouped queries included, and what differs from it in little:
 * `MistralForCausalLM` and `Qwen2ForCausalLM`.
 */
import { UserError } from "../errors.ts";
import { llama, type LlamaConfiguration } from "../models/llama.ts";
import { oneOf, optional, positive, real, type Rule } from "../rules.ts";
import { columns, type Family, same, transposed } from "./reference.ts";
import { above0, absent, constant, fixed, only, putAt, type Setting, size, trained, whether } from "./said.ts";

/** What stands for what is left out, where the types differ (transformers 5.24). */
const unsaid: Readonly<Record<string, { hidden: number; kvHeads?: number; positions: number; window?: number }>> = {
  llama: { hidden: 11_008, positions: 2048 },
  mistral: { hidden: 14_336, kvHeads: 8, positions: 131_072, window: 4096 },
  qwen2: { hidden: 22_016, kvHeads: 32, positions: 32_768 },
};

// transformers 5 has the rotation's constants in one object, older versions the base apart.
const rotary = (name: string) => [`rope_scaling.${name}`, `rope_parameters.${name}`];

/** What Llama 3's scaling of the rotation needs. */
const scaling: readonly [name: string, field: string, rule: Rule][] = [
  ["factor", "ropeScaling.factor", real({ least: 1 })],
  ["low_freq_factor", "ropeScaling.lowFrequencyFactor", above0],
  ["high_freq_factor", "ropeScaling.highFrequencyFactor", above0],
  ["original_max_position_embeddings", "ropeScaling.originalLength", positive],
];

const fullAttention: Rule = {
  right: '"full_attention" in every layer',
  accepts: (value) => value === undefined || (Array.isArray(value) && value.every((each) => each === "full_attention")),
};

function settings(type = "llama"): Setting[] {
  const { hidden, kvHeads, positions, window } = unsaid[type] ?? unsaid.llama;
  return [
    size("vocab_size", "vocabulary", 32_000),
    size("hidden_size", "width", 4096),
    size("num_hidden_layers", "blocks", 32),
    size("intermediate_size", "hidden", hidden),
    size("max_position_embeddings", "positions", positions),
    constant("rms_norm_eps", "epsilon", above0, 1e-6),
    constant(["rope_theta", ...rotary("rope_theta")], "ropeTheta", above0, 10_000),
    constant([...rotary("rope_type"), ...rotary("type")], "ropeScaling", oneOf(["default", "llama3"]), "default"),
    ...scaling.map(([name, field, rule]) => constant(rotary(name), field, optional(rule))),
    constant("tie_word_embeddings", "tied", whether, false),
    constant("num_attention_heads", "heads", positive, 32),
    constant("num_key_value_heads", "kvHeads", optional(positive), kvHeads),
    constant("head_dim", "headSize", optional(positive)),
    fixed("hidden_act", only("silu", "swish")),
    fixed(["partial_rotary_factor", ...rotary("partial_rotary_factor")], only(1)),
    fixed(rotary("full_attention"), absent), // a rotation for each kind of layer
    ...type === "qwen2"
      ? [fixed("use_sliding_window", only(false))] // its biases are not asked for, it has them
      : [fixed("sliding_window", absent, window), fixed("attention_bias", only(false))],
    fixed("layer_types", fullAttention),
    fixed("mlp_bias", only(false)),
    fixed("quantization_config", absent),
    trained("attention_dropout", only(0), 0),
  ];
}

/** Names and layouts of `LlamaForCausalLM`. */
export const llamaFamily: Family = {
  title: "LLaMa",
  types: ["llama", "mistral", "qwen2"],
  settings,
  values: ({ configuration, tied = [] }) => ({
    ...configuration,
    tied: tied.length > 0,
    ropeScaling: configuration["ropeScaling.factor"] === undefined ? "default" : "llama3",
  }),
  make(name, { type, values, length }) {
    const fields = Object.entries(values).filter(([field]) => !/^(positions$|ropeScaling)/.test(field));
    const configuration: Record<string, unknown> = { ...Object.fromEntries(fields), length, qkvBias: type === "qwen2" };
    for (const [theirs, field, { right }] of values.ropeScaling === "llama3" ? scaling : []) {
      if (values[field] === undefined) {
        throw new UserError(`${theirs} must be ${right}, not left out, where rope_type is "llama3"`);
      }
      putAt(configuration, field, values[field]);
    }
    return llama(name, configuration as unknown as LlamaConfiguration);
  },
  references(parameter, { heads, kvHeads, headSize }) {
    const { name } = parameter;
    const [, block, part] = /^blocks\.(\d+)\.(.+)$/.exec(name) ?? ["", "", name];
    const layer = `model.layers.${block}`;
    switch (part) {
      case "embedding.weight":
        return same("model.embed_tokens.weight", parameter);
      case "attention.norm.weight":
        return same(`${layer}.input_layernorm.weight`, parameter);
      case "attention.qkv.weight":
      case "attention.qkv.bias": {
        if (!headSize) return; // another family's
        const names = ["q", "k", "v"].map((which) => `${layer}.self_attn.${which}_proj.${part.split(".")[2]}`);
        return columns(names, parameter, [heads, kvHeads, kvHeads].map((count) => count * headSize));
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
};
