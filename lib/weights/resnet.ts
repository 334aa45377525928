/** ResNets as torchvision has them. Their names are ours; its images have the channels outside, ours inside. */
import { type Family, same, transposed } from "./reference.ts";
import { above0, constant } from "./said.ts";

/** Names and layouts of torchvision's `ResNet`. */
export const resnetFamily: Family = {
  title: "ResNet",
  references(parameter) {
    const { name, shape } = parameter;
    if (name === "fc.weight") return transposed(name, parameter);
    if (name === "fc.bias") return same(name, parameter);
    if (!/^(layer\d+\.\d+\.)?(conv\d|bn\d|downsample\.[01])\.(weight|bias|running_mean|running_var)$/.test(name)) {
      return;
    }
    if (shape.length === 1) return same(name, parameter);
    const [height, width, inputs, outputs] = shape;
    return [{
      name,
      shape: [outputs, inputs, height, width],
      parameter: name,
      offset: 0,
      strides: [1, outputs, width * inputs * outputs, inputs * outputs],
    }];
  },
  // A counter that PyTorch uses for averages over all batches alone, which no ResNet has; it starts anew where there is none.
  rename: (name) => name.endsWith(".num_batches_tracked") ? undefined : name,
  // torchvision stores no configuration; the name is that of timm, whose tensors are named alike.
  types: [],
  settings: () => [constant("bn_eps", "epsilon", above0)],
  values: ({ configuration }) => configuration,
};
