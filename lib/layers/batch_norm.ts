/** Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167) of channels, over the pixels of a micro-batch's samples. */
import { UserError } from "../errors.ts";
import * as ops from "../ops/batch_norm.ts";
import { sizeOf } from "../tensor.ts";
import { stateBuffer } from "./buffers.ts";
import { addSums, keptSum } from "./kept_sums.ts";
import { expectInput, type Layer } from "./layer.ts";
import { butFrozen, isTrained, parameter, type Trainable } from "./parameter.ts";

/**
 * Normalises each of the `channels` of [samples, height, width, channels] by its mean and deviation in the *micro-batch*, as pipelines
 * of others do: a batch cut otherwise is normalised otherwise. Each forward moves the running statistics on; an evaluation normalises by them
 * instead, and leaves them as they are. With `relu` it
 * applies max(x, 0) to the result in the same pass over memory.
 *
 * The input gradient is made of the gradients of gain and bias, so I computes these whoever else's sums W makes (`Saved.sums`): they
 * cost I nothing. What is left for W is to add them to the parameters' gradients. It reads no x and no dy, and both go after I.
 *
 * Frozen it still normalises by the micro-batch and moves its running statistics on.
 *
 * Its `outputShape` throws a UserError for one value a channel, one sample of one pixel, as PyTorch does: less its mean that is 0
 * whatever it was.
 */
export function batchNorm(
  name: string,
  channels: number,
  options: ops.BatchNormOptions = {},
  trainable: Trainable = true,
): Layer {
  const gain = parameter(`${name}.weight`, [channels], "ones", trainable);
  const bias = parameter(`${name}.bias`, [channels], "zeros", trainable);
  const [trainsGain, trainsBias] = [isTrained(gain), isTrained(bias)];
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
    flops: (shape) => ({
      f: 7 * sizeOf(shape),
      i: 9 * sizeOf(shape),
      w: (Number(trainsGain) + Number(trainsBias)) * channels,
    }),
    forward(y, x, saved) {
      const running = { mean: saved.state(runningMean), variance: saved.state(runningVariance) };
      if (saved.evaluating) {
        ops.batchNormRunning(y, running, x, saved.value(gain), saved.value(bias), options);
        return;
      }
      const [mean, rstd] = [0, 1].map(() => saved.scratch([channels], "f32", "activations"));
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
      const weights = [saved.value(gain), saved.value(bias)] as const;
      if (dx || trainsGain || trainsBias) {
        const dgain = keptSum(saved, "dgain", channels, trainsGain),
          dbias = keptSum(saved, "dbias", channels, trainsBias);
        ops.batchNormSums(dgain, dbias, dy, x, statistics, ...weights, options);
        if (dx) ops.batchNormBackwardInput(dx, dy, x, statistics, ...weights, dgain, dbias, options);
      }
      saved.drop("x", "mean", "rstd");
    },
    backwardWeight(saved) {
      if (trainsGain) addSums(gain, "dgain", saved);
      if (trainsBias) addSums(bias, "dbias", saved);
    },
    freeze: (isFrozen) => batchNorm(name, channels, options, butFrozen(trainable, isFrozen)),
  };
}
