import assert from "node:assert/strict";
import { after, test } from "node:test";
import { fromHalf, toHalf } from "../../lib/half.ts";
import { conv2d, conv2dBackwardInput, conv2dBackwardWeight, mostColumnBytes } from "../../lib/ops/conv.ts";
import { release } from "../../lib/tensor.ts";
import * as reference from "../reference/conv.ts";
import type { ConvShape } from "../reference/conv.ts";
import {
  assertGradient,
  assertTensor,
  close,
  device,
  dirty,
  normal,
  rowVariants,
  tensor,
  weigh,
  withCandidate,
} from "./support.ts";

after(close);

const cases: ConvShape[] = [
  { samples: 2, height: 5, width: 7, inputs: 3, outputs: 5, size: 3, stride: 1, padding: 1 },
  { samples: 3, height: 7, width: 6, inputs: 4, outputs: 8, size: 3, stride: 2, padding: 1 },
  { samples: 1, height: 15, width: 13, inputs: 3, outputs: 4, size: 7, stride: 2, padding: 3 },
  { samples: 2, height: 5, width: 3, inputs: 6, outputs: 7, size: 1, stride: 1, padding: 0 },
  { samples: 2, height: 5, width: 6, inputs: 8, outputs: 4, size: 1, stride: 2, padding: 0 },
  { samples: 1, height: 4, width: 9, inputs: 1, outputs: 1, size: 2, stride: 3, padding: 0 },
  { samples: 1, height: 2, width: 1, inputs: 4, outputs: 3, size: 3, stride: 1, padding: 2 },
  { samples: 2, height: 9, width: 7, inputs: 12, outputs: 36, size: 3, stride: 1, padding: 1 },
  { samples: 3, height: 5, width: 8, inputs: 40, outputs: 4, size: 3, stride: 2, padding: 0 },
  { samples: 1, height: 10, width: 3, inputs: 8, outputs: 8, size: 2, stride: 3, padding: 1 },
  { samples: 2, height: 6, width: 1, inputs: 4, outputs: 8, size: 5, stride: 2, padding: 2 },
];

/** Candidates for so many channels; those that a device does not support are others once more. */
function waysOf(inputs: number, outputs: number): string[] {
  const implicit = inputs % 4 === 0 && outputs % 4 === 0 ? ["conv_subgroup:convolve"] : [];
  return [...rowVariants(inputs).map((variant) => `patches ${variant}`), ...implicit];
}

for (const shape of cases) {
  const { samples, height, width, inputs, outputs, size, stride, padding } = shape;
  const xShape = [samples, height, width, inputs], weightShape = [size, size, inputs, outputs];
  const yShape = [samples, ...reference.convOutput(shape), outputs];
  const count = (lengths: number[]) => lengths.reduce((product, length) => product * length, 1);
  const x = normal(count(xShape), 1), weight = normal(count(weightShape), 2), dy = normal(count(yShape), 3);
  const { dx, dweight } = reference.conv2dBackward(dy, x, weight, shape);

  for (const way of waysOf(inputs, outputs)) {
    test(`conv2d() of [${xShape}], ${size} x ${size}, stride ${stride}, padding ${padding} (${way}), and both its gradients equal the float64 reference`, async () => {
      const on = await device();
      const before = on.ledger.live.workspace;
      const out = dirty(on, yShape), outDx = dirty(on, xShape);
      const start = normal(weight.length, 4), outDweight = tensor(on, weightShape, start);
      const [xt, wt, dyt] = [tensor(on, xShape, x), tensor(on, weightShape, weight), tensor(on, yShape, dy)];
      withCandidate(way, () => {
        conv2d(out, xt, wt, { stride, padding });
        conv2dBackwardInput(outDx, dyt, wt, { stride, padding });
        conv2dBackwardWeight(outDweight, dyt, xt, { stride, padding });
      });
      await assertTensor(out, reference.conv2d(x, weight, shape), 4e-6, "y");
      await assertTensor(outDx, dx, 4e-6, "dx");
      await assertTensor(outDweight, dweight.map((value, i) => value + start[i]), 4e-6, "dweight");
      release(xt, wt, dyt);
      assert.equal(on.ledger.live.workspace, before);
    });
  }
}

for (
  const [shape, way] of [
    [cases[7], "patches plain"],
    [cases[7], "patches vec4"],
    [cases[7], "patches group"],
    [cases[7], "conv_subgroup:convolve"],
    [cases[9], "conv_subgroup:convolve"],
  ] as const
) {
  test(`conv2d() in f16, stride ${shape.stride} (${way}), and both its gradients round the float64 reference of rounded inputs`, async (t) => {
    const on = await device();
    if (!on.gpu.info.f16) return t.skip("this device has no f16");
    const { samples, height, width, inputs, outputs, size, stride, padding } = shape;
    const half = (lengths: number[], seed: number) => {
      const data = fromHalf(toHalf(normal(lengths.reduce((product, length) => product * length, 1), seed)));
      return { data, tensor: tensor(on, lengths, data, "f16") };
    };
    const x = half([samples, height, width, inputs], 1), weight = half([size, size, inputs, outputs], 2);
    const dy = half([samples, ...reference.convOutput(shape), outputs], 3);
    const y = dirty(on, dy.tensor.shape, "f16"), dx = dirty(on, x.tensor.shape, "f16");
    const dweight = tensor(on, weight.tensor.shape, new Float32Array(weight.data.length));
    withCandidate(way, () => {
      conv2d(y, x.tensor, weight.tensor, { stride, padding });
      conv2dBackwardInput(dx, dy.tensor, weight.tensor, { stride, padding });
      conv2dBackwardWeight(dweight, dy.tensor, x.tensor, { stride, padding });
    });
    const expected = reference.conv2dBackward(dy.data, x.data, weight.data, shape);
    await assertTensor(y, reference.conv2d(x.data, weight.data, shape), 6e-4, "y");
    await assertTensor(dx, expected.dx, 6e-4, "dx");
    await assertTensor(dweight, expected.dweight, 4e-6, "dweight");
  });
}

test("conv2d() of more samples than fit the workspace takes them in chunks, and its gradients too", async () => {
  const on = await device();
  const shape = { samples: 3, height: 100, width: 100, inputs: 16, outputs: 1, size: 5, stride: 1, padding: 2 };
  const { samples, height, width, inputs, outputs, size } = shape;
  const patchBytes = height * width * size * size * inputs * 4;
  assert.ok(2 * patchBytes <= mostColumnBytes && 3 * patchBytes > mostColumnBytes);
  const xShape = [samples, height, width, inputs], yShape = [samples, height, width, outputs];
  const weightShape = [size, size, inputs, outputs];
  const x = normal(samples * height * width * inputs, 1), weight = normal(size * size * inputs * outputs, 2);
  const dy = normal(samples * height * width * outputs, 3);
  const { dx, dweight } = reference.conv2dBackward(dy, x, weight, shape);
  const out = dirty(on, yShape), outDx = dirty(on, xShape);
  const outDweight = tensor(on, weightShape, new Float32Array(weight.length));
  const [xt, wt, dyt] = [tensor(on, xShape, x), tensor(on, weightShape, weight), tensor(on, yShape, dy)];
  on.ledger.resetPeak();
  conv2d(out, xt, wt, { stride: 1, padding: 2 });
  conv2dBackwardInput(outDx, dyt, wt, { stride: 1, padding: 2 });
  conv2dBackwardWeight(outDweight, dyt, xt, { stride: 1, padding: 2 });
  assert.ok(on.ledger.peak.workspace <= mostColumnBytes);
  await assertTensor(out, reference.conv2d(x, weight, shape), 1e-5, "y");
  await assertTensor(outDx, dx, 1e-5, "dx");
  await assertTensor(outDweight, dweight, 2e-5, "dweight");
  release(xt, wt, dyt);
});

test("the conv2d reference's backward equals finite differences of its forward", () => {
  const shape = { samples: 2, height: 4, width: 3, inputs: 2, outputs: 2, size: 3, stride: 2, padding: 1 };
  const [outHeight, outWidth] = reference.convOutput(shape);
  const x = normal(2 * 4 * 3 * 2, 1), weight = normal(3 * 3 * 2 * 2, 2), dy = normal(2 * outHeight * outWidth * 2, 3);
  const { dx, dweight } = reference.conv2dBackward(dy, x, weight, shape);
  assertGradient((x) => weigh(reference.conv2d(x, weight, shape), dy), x, dx, "dx");
  assertGradient((weight) => weigh(reference.conv2d(x, weight, shape), dy), weight, dweight, "dweight");
});

test("conv2d() rejects a weight for other channels and an output of another size, naming both shapes", async () => {
  const on = await device();
  const x = dirty(on, [2, 5, 5, 3]), weight = dirty(on, [3, 3, 3, 4]);
  assert.throws(
    () => conv2d(dirty(on, [2, 5, 5, 4]), x, dirty(on, [3, 3, 2, 4]), { stride: 1, padding: 1 }),
    /conv2d: the weight is f32 \[3,3,2,4\] where f32 or f16 \[3,3,3,4\] is needed/,
  );
  assert.throws(
    () => conv2d(dirty(on, [2, 5, 5, 4]), x, weight, { stride: 2, padding: 1 }),
    /conv2d: the output is f32 \[2,5,5,4\] where f32 or f16 \[2,3,3,4\] is needed/,
  );
  assert.throws(
    () => conv2d(dirty(on, [2, 5, 5, 4]), x, dirty(on, [7, 7, 3, 4]), { stride: 2, padding: 0 }),
    /A 7 x 7 window with padding 0 does not fit into images of shape \[2,5,5,3\]/,
  );
});
