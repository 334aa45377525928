/** What the pipeline tests share: a tiny model, a batch of random tokens, comparisons of gradients. */
import assert from "node:assert/strict";
import { llama, type LlamaConfiguration } from "../../lib/models/llama.ts";
import type { Tensor } from "../../lib/tensor.ts";
import type { Batch } from "../../lib/train/data.ts";
import type { OptimizerSpec } from "../../lib/train/optimizers.ts";
import { generator } from "../../lib/random.ts";

/** Small, with sizes that divide no tile: 2 blocks, head size 6. */
export const tiny: LlamaConfiguration = { vocabulary: 19, width: 12, blocks: 2, heads: 2, hidden: 10, length: 7 };

/** As small, with sizes that make slots of micro-batches touch: rows x width x 4 bytes a multiple of 256. */
export const aligned: LlamaConfiguration = { vocabulary: 32, width: 16, blocks: 2, heads: 2, hidden: 16, length: 16 };

/** Enough layers for schedules with many stages. */
export const deep: LlamaConfiguration = { ...aligned, blocks: 4 };

export const tinyModel = (configuration = tiny) => llama("tiny", configuration);

/** Random tokens, the same in every run. */
export function randomBatch({ vocabulary, length }: LlamaConfiguration, samples: number, seed = 1): Batch {
  const random = generator(seed);
  const tokens = () => Uint32Array.from({ length: samples * length }, () => random.integer(vocabulary));
  return { samples, inputs: tokens(), targets: tokens() };
}

/** What an optimizer was given of one rank's parameters, flat; in mixed precision `copy` is what kernels read. */
export interface Block {
  readonly masters: Tensor;
  readonly gradients: Tensor;
  readonly copy: Tensor | undefined;
}

/** The same optimizer, and the blocks that a pipeline gives it, rank by rank: no pipeline shows them. */
export function spied(optimizer: OptimizerSpec): { optimizer: OptimizerSpec; blocks: Block[] } {
  const blocks: Block[] = [];
  return {
    blocks,
    optimizer: {
      ...optimizer,
      create(masters, gradients, decayed, copy, ...rest) {
        blocks.push({ masters, gradients, copy });
        return optimizer.create(masters, gradients, decayed, copy, ...rest);
      },
    },
  };
}

export type Gradients = ReadonlyMap<string, Float32Array>;

/** Fails unless each gradient is within `tolerance` of the expected one, in the norm of all its elements. */
export function assertSameGradients(actual: Gradients, expected: Gradients, tolerance: number, what: string): void {
  assert.deepEqual([...actual.keys()], [...expected.keys()]);
  for (const [name, values] of expected) {
    let difference = 0, size = 0;
    actual.get(name)!.forEach((value, i) => {
      difference += (value - values[i]) ** 2;
      size += values[i] ** 2;
    });
    assert.ok(size > 0, `${what}: the expected gradient of ${name} is zero, which would prove nothing`);
    const relative = Math.sqrt(difference / size);
    assert.ok(relative <= tolerance, `${what}: gradient of ${name} is off by ${relative}`);
  }
}
