/** An optimizer of a piece of a block of parameters. */
import type { ParameterBlock } from "../layers/parameter_blocks.ts";
import { bytesOf, release, type Tensor, view } from "../tensor.ts";
import type { Optimizer, OptimizerSpec } from "../train/optimizers.ts";
import { lengthOf, type Piece } from "./pieces.ts";

/**
 * What updates a piece of a block, all of it perhaps. It sees the piece alone: parameters that lie in it by part are of no shape that
 * it would know.
 */
export function optimizerOf(spec: OptimizerSpec, block: ParameterBlock, { start, end }: Piece): Optimizer {
  const { masters, values, gradients, decayed, parameters, starts } = block;
  const length = lengthOf({ start, end });
  if (length === 0) return nothingToUpdate(spec);
  const part = (tensor: Tensor) => {
    const own = view(tensor, [length], bytesOf([start], tensor.dtype));
    release(own); // the block has its own
    return own;
  };
  return spec.create(
    part(masters),
    part(gradients),
    Math.min(length, Math.max(0, decayed - start)),
    values.dtype === masters.dtype ? undefined : part(values),
    parameters.flatMap(({ shape }, index) =>
      starts[index] >= start && starts[index] < end ? [{ shape, start: starts[index] - start }] : []
    ),
  );
}

/** Where there are more replicas than a block can be cut into. */
function nothingToUpdate({ learningRate }: OptimizerSpec): Optimizer {
  let updates = 0;
  return {
    learningRate,
    prepare() {},
    step() {},
    commit: () => void updates++,
    release() {},
    memory: {
      moments: [],
      get updates() {
        return updates;
      },
      resume: (count) => void (updates = count),
    },
  };
}
