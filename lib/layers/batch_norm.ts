/** Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) of channels, over the pixels of a micro-batch's samples. */
import { UserError } from "../errors.ts";
import * as ops from "../ops/batch_norm.ts";
import { columnSum } from "../ops/bias.ts";
import { joinAdjacent, sizeOf } from "../tensor.ts";
import { stateBuffer } from "./buffers.ts";
import { expectInput, type Layer } from "./layer.ts";
import { parameter } from "./parameter.ts";

/**
 * Normalises each of the `channels` of [samples, height, width, channels] by its mean and deviation in the *micro-batch*, as pipelines
 * of others do: a batch cut otherwise is normalised otherwise. Each forward moves the running statistics on. With `relu` it
 * applies max(x, 0) to the result in the same pass over memory.
 *
 * The input gradient is made of the gradients of gain and bias, so I computes these whoever else's sums W makes (`Saved.sums`): they
 * cost I nothing. What is left for W is to add them to the parameters' gradients. It reads no x and no dy, and both go after I.
 *
 * Its `outputShape` throws a UserError for one value a channel, one sample of one pixel, as PyTorch does: less its mean that is 0
 * whatever it was.
 */
export function batchNorm(name: string, channels: number, options: ops.BatchNormOptions = {}): Layer {
  const gain = parameter(`${name}.weight`, [channels], "ones");
  const bias = parameter(`${name}.bias`, [channels], "zeros");
  const runningMean = stateBuffer(`${name}.running_mean`, [channels], "zeros");
  const runningVariance = stateBuffer(`${name}.running_var`, [channels], "ones");
  return {
    parameters: [gain, bias],
    buffers: [runningMean, runningVariance],
    reads: {},
    outputShape(shape) {
      expectInput(name, shape, shape.map((_, axis) => axis < shape.length - 1 ? "any" : channels));
      if (sizeOf(shape.slice(0, -1)) < 2) {
        throw new UserError(
          `${name}: batch normalisation over [${shape}] needs at least 2 values a channel, and there is 1, whose deviation is 0: ` +
            `micro-batches of more samples or larger images have more`,
        );
      }
      return shape;
    },
    flops: (shape) => ({ f: 7 * sizeOf(shape), i: 9 * sizeOf(shape), w: 2 * channels }),
    forward(y, x, saved) {
      const [mean, rstd] = [0, 1].map(() => saved.scratch([channels], "f32", "activations"));
      const running = { mean: saved.state(runningMean), variance: saved.state(runningVariance) };
      // A forward that recomputes leaves the running statistics where the first has moved them.
      ops.batchNorm(y, { mean, rstd }, running, x, saved.value(gain), saved.value(bias), {
        ...options,
        ...saved.recomputing ? { momentum: 0 } : {},
      });
      saved.keep("x", x);
      saved.keep("mean", mean);
      saved.keep("rstd", rstd);
    },
    backwardInput(dx, dy, saved) {
      const x = saved.get("x"), statistics = { mean: saved.get("mean"), rstd: saved.get("rstd") };
      const dgain = saved.slot("dgain", [1, channels], "derivatives");
      const dbias = saved.slot("dbias", [1, channels], "derivatives");
      const weights = [saved.value(gain), saved.value(bias)] as const;
      ops.batchNormSums(dgain, dbias, dy, x, statistics, ...weights, options);
      if (dx) ops.batchNormBackwardInput(dx, dy, x, statistics, ...weights, dgain, dbias, options);
      saved.drop("x", "mean", "rstd");
      saved.keep("dgain", dgain);
      saved.keep("dbias", dbias);
    },
    backwardWeight(saved) {
      const [{ gradient }] = saved;
      const sums = saved.map((each) => [each.get("dgain"), each.get("dbias")] as const);
      for (const [dgain, dbias] of joinAdjacent(sums)) {
        columnSum(gradient(gain), dgain);
        columnSum(gradient(bias), dbias);
      }
    },
  };
}
