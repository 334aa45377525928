/**
 * A model of one's own that mixes kinds: convolutions make an image a short sequence, transformer blocks mix it, a head names its class.
 * Trains it on two devices, without and with 2BP, from equal starts on equal batches; prints both losses, which agree to 1e-5.
 */
import { createPipeline, openDevices, schedulePair, sgd } from "twobp";
import * as nn from "twobp/layers";
import { crossEntropy } from "twobp/losses";
import { defineModel } from "twobp/models";
import { syntheticImages } from "twobp/train";

/** Images [16, 16, 3] become 4 x 4 tokens; attention is that of an encoder, which turns by position. */
function convTransformer(width: number, heads: number, blocks: number, classes: number) {
  const side = 4, length = side * side, biased = { bias: true };
  const attention = { width, heads, length, outputDeviation: 0.02, causal: false, ...biased };
  const block = (name: string) => [
    nn.preNorm(nn.layerNorm(`${name}.norm1`, width), nn.selfAttention(`${name}.attention`, attention)),
    nn.preNorm(
      nn.layerNorm(`${name}.norm2`, width),
      nn.sequential([
        nn.linear(`${name}.up`, width, 2 * width, biased),
        nn.gelu(),
        nn.linear(`${name}.down`, 2 * width, width, biased),
      ]),
    ),
  ];
  return defineModel({
    name: "conv-transformer",
    inputs: { shape: [16, 16, 3] },
    layers: [
      nn.sequential([nn.conv2d("stem.conv", 3, 8, { size: 3, stride: 2 }), nn.batchNorm("stem.norm", 8), nn.relu()]),
      nn.conv2d("patches", 8, width, { size: 2, stride: 2, padding: 0 }),
      nn.reshape(([samples, height, width, channels]) => [samples * height * width, channels]),
      ...Array.from({ length: blocks }, (_, index) => block(`blocks.${index}`)).flat(),
      nn.sequential([
        nn.layerNorm("norm", width),
        nn.reshape(([rows, channels]) => [rows / length, side, side, channels]),
        nn.averagePool(),
        nn.linear("head", width, classes, biased),
      ]),
    ],
    loss: crossEntropy(),
  });
}

const set = await openDevices(2);
const model = convTransformer(32, 4, 2, 5);
const { base, split } = schedulePair("1f1b-1", { devices: 2 });
const optimizer = sgd({ learningRate: 0.1 }), source = syntheticImages({ size: 16, classes: 5, seed: 1 });
const runs = [base, split].map((schedule) => ({
  schedule,
  pipeline: createPipeline(set, model, { optimizer, seed: 1 }),
}));
for (let step = 1; step <= 20; step++) {
  const batch = source.next(16), losses: number[] = [];
  for (const { schedule, pipeline } of runs) losses.push((await pipeline.step(schedule, batch)).loss);
  if (step % 5 === 0) console.log(`step ${step}: loss ${losses.map((loss) => loss.toFixed(6)).join(", with 2BP ")}`);
  if (!(Math.abs(losses[0] - losses[1]) <= 1e-5)) throw new Error(`2BP changed the training: ${losses}`);
}
runs.forEach(({ pipeline }) => pipeline.close());
set.close();
