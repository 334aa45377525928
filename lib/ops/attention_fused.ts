/**
 * Attention without the score matrix (FlashAttention-2: Dao, arXiv 2307.08691): scores are computed tile by tile in both
 * passes, and only the logarithms of their sums of exponentials are kept from F to I.
 */
import type { GpuInfo } from "../gpu/gpu.ts";
import { type Kernel, kernel } from "../gpu/kernel.ts";
import type { View } from "../gpu/device.ts";
import type { ParameterValues } from "../gpu/parameters.ts";
import { empty, release, type Tensor } from "../tensor.ts";
import type { AttentionMasks, AttentionShape, AttentionWay } from "./attention_shape.ts";
import { dropParameters } from "./dropout.ts";
import { lanes } from "./elementwise.ts";
import { inLayers } from "./variants.ts";

/** Registers and shuffles, no workgroup memory: for software Vulkan. */
export const fusedSubgroup = fused({
  file: "attention_subgroup",
  supports: (info, { headSize }) =>
    [4, 8, 16].includes(info.subgroupSize) && headSize % 4 === 0 && headSize <= 16 * info.subgroupSize,
  constants: ({ subgroupSize }, { headSize }) => ({
    LANES: subgroupSize,
    BLOCKS: Math.ceil(headSize / (4 * subgroupSize)),
  }),
  rows: 32,
});

/** Tiles in workgroup memory: for GPUs. */
export const fusedWorkgroup = fused({
  file: "attention_workgroup",
  supports: (_, { headSize }) => headSize % 4 === 0 && headSize <= 128,
  constants: (_, { headSize }) => ({ BLOCKS: Math.ceil(headSize / 32) }),
  rows: 64,
});

/** One set of kernels: `file` has the entry `forward`, `file`_backward the entries `queries` and `keys`. */
interface Kernels {
  readonly file: string;
  readonly supports: AttentionWay["supports"];
  readonly constants: (info: GpuInfo, shape: AttentionShape) => Record<string, number>;
  /** Queries or keys that a workgroup takes. */
  readonly rows: number;
}

/** Keeps the logarithms of the sums of exponentials, [sequences, heads, length]. */
function fused({ file, supports, constants, rows }: Kernels): AttentionWay {
  const kernels = new Map<string, Kernel>();
  const compiled = (info: GpuInfo, name: string, entry: string, shape: AttentionShape, masks: AttentionMasks) => {
    const values = {
      ...constants(info, shape),
      DROPOUT: Number(masks.dropout !== undefined),
    };
    const key = `${entry} ${Object.values(values)}`;
    let found = kernels.get(key);
    if (!found) kernels.set(key, found = kernel(name, entry, values));
    return found;
  };
  return {
    name: file,
    supports,
    keeps: ({ sequences, heads, length }) => ({ name: "logSumExp", shape: [sequences, heads, length], dtype: "f32" }),

    forward(out, logs, qkv, shape, masks) {
      const { sequences, length, heads } = shape;
      const kernel = compiled(out.device.gpu.info, file, "forward", shape, masks);
      const views = [out, logs, qkv, ...sides(masks, qkv)];
      inLayers(sequences, (sequence, layers) => {
        const parameters = { ...parametersOf(shape, masks), sequence };
        out.device.dispatch(kernel, parameters, views, [Math.ceil(length / rows), heads, layers]);
      });
    },

    backward(dqkv, dout, out, qkv, logs, shape, masks) {
      const { sequences, length, heads, kvHeads = heads } = shape;
      const means = empty(dqkv.device, logs.shape, "workspace");
      dotRows(means, out, dout, shape);
      const views = [dqkv, qkv, dout, logs, means, ...sides(masks, qkv)];
      for (const [entry, count] of [["queries", heads], ["keys", kvHeads]] as const) {
        const kernel = compiled(dqkv.device.gpu.info, `${file}_backward`, entry, shape, masks);
        inLayers(sequences, (sequence, layers) => {
          const parameters = { ...parametersOf(shape, masks), sequence };
          dqkv.device.dispatch(kernel, parameters, views, [Math.ceil(length / rows), count, layers]);
        });
      }
      release(means);
    },
  };
}

function parametersOf(shape: AttentionShape, { lengths, dropout }: AttentionMasks): ParameterValues {
  const { length, heads, kvHeads = heads, headSize, causal = true } = shape;
  return {
    length,
    heads,
    members: heads / kvHeads,
    size: headSize / 4,
    causal: Number(causal),
    padded: Number(lengths !== undefined),
    scale: 1 / Math.sqrt(headSize),
    ...dropout ? dropParameters(dropout) : { threshold: 0, keep: 0, salt: 0 },
  };
}

/** What the masks read. A kernel binds both, even where it reads neither: then it is given any memory. */
function sides({ lengths, dropout }: AttentionMasks, qkv: Tensor): View[] {
  const unread: View = { ...qkv, dtype: "u32" };
  return [lengths ?? unread, dropout?.seed ?? unread];
}

const dots = kernel("attention_means", "dots");

function dotRows(means: Tensor, out: Tensor, dout: Tensor, { sequences, length, heads, headSize }: AttentionShape) {
  const count = sequences * length * heads;
  means.device.dispatch(dots, { count, length, heads, size: headSize / 4 }, [means, out, dout], lanes(count));
}
