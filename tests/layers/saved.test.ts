/** The contract between layers and whoever calls them: tensors of parameters, scratch, composites. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { stateBuffer } from "../../lib/layers/buffers.ts";
import { composed } from "../../lib/layers/composite.ts";
import { createGroup, releaseGroup } from "../../lib/layers/group.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import { parameter } from "../../lib/layers/parameter.ts";
import { placeLayers } from "../../lib/layers/placed.ts";
import { backwardInput, backwardWeight, forward } from "../../lib/layers/run.ts";
import { createSaved, type Saved } from "../../lib/layers/saved.ts";
import { empty, release } from "../../lib/tensor.ts";

/** A layer that does with its store what is given, in each function. */
function layerOf(work: (saved: Saved) => void): Layer {
  return {
    parameters: [],
    reads: {},
    outputShape: (shape) => shape,
    flops: () => ({ f: 0, i: 0, w: 0 }),
    forward: (_y, _x, saved) => work(saved),
    backwardInput: (_dx, _dy, saved) => work(saved),
    backwardWeight: ([saved]) => work(saved),
  };
}

/** The three functions of a layer, each in a call. */
const calls: Readonly<Record<string, (layer: Layer, saved: Saved) => void>> = {
  forward: (layer, saved) => forward(layer, undefined as never, undefined as never, saved),
  backwardInput: (layer, saved) => backwardInput(layer, undefined, undefined as never, saved),
  backwardWeight: (layer, saved) => backwardWeight(layer, [saved]),
};

/** A store on a dry device, in a group of two, while `body` lasts; then nothing may be in use. */
function withSaved(body: (saved: Saved, device: Device) => void) {
  const [device] = dryDevices(1);
  const group = createGroup(placeLayers([], device), 2);
  const saved = createSaved(group, 1);
  body(saved, device);
  saved.clear();
  releaseGroup(group);
  assert.equal(device.ledger.total(), 0);
}

test("scratch is released when the function returns or throws, and what is kept stays", () => {
  for (const [name, call] of Object.entries(calls)) {
    withSaved((saved, device) => {
      const layer = layerOf((saved) => {
        const a = saved.scratch([256]), b = saved.scratch([256], "f16", "activations");
        assert.deepEqual([a.dtype, a.storage.category], ["f32", "workspace"]);
        assert.deepEqual([b.dtype, b.storage.category], ["f16", "activations"]);
        saved.keep(`b of ${name}`, b);
        assert.equal(device.ledger.total(), 1536);
      });
      call(layer, saved);
      assert.equal(device.ledger.total(), 512, `${name}: what is kept`);
      const broken = layerOf((saved) => {
        saved.scratch([1024]);
        throw new Error("broken");
      });
      assert.throws(() => call(broken, saved), /^Error: broken$/);
      assert.equal(device.ledger.total(), 512, `${name} throws`);
    });
  }
});

test("a slot is scratch as well: the slab of its group stays, for the others' slots and for what is kept", () => {
  withSaved((saved, device) => {
    forward(
      layerOf((saved) => void saved.slot("a", [64], "derivatives")),
      undefined as never,
      undefined as never,
      saved,
    );
    assert.deepEqual(device.ledger.live.derivatives, 512);
  });
});

test("scratch that is released early is released once, and only by the function that has it", () => {
  withSaved((saved, device) => {
    const foreign = empty(device, [64], "workspace");
    const layer = layerOf((saved) => {
      const large = saved.scratch([1024]), small = saved.scratch([64]);
      saved.release(large);
      assert.equal(device.ledger.total(), 512);
      for (const tensor of [large, foreign]) {
        assert.throws(
          () => saved.release(tensor),
          /releases early what is no scratch of its own, or has been released/,
        );
      }
      saved.run(() => assert.throws(() => saved.release(small), /no scratch of its own/));
      saved.run(() => saved.scratch([1024]));
      assert.equal(device.ledger.total(), 512, "the run inside has ended");
    });
    forward(layer, undefined as never, undefined as never, saved);
    release(foreign);
  });
});

test("a layer whose function is not called through forward(), backwardInput() or backwardWeight() gets no scratch", () => {
  withSaved((saved) => {
    const asks = layerOf((saved) => void saved.scratch([4]));
    const outside = /^Error: Layer "inner" asks for scratch outside a layer's function/;
    const outer = composed({ inner: asks }, {
      ...asks,
      forward: (y, x, saved) => asks.forward(y, x, saved.child("inner")),
      backwardInput: (dx, dy, saved) => asks.backwardInput(dx, dy, saved.child("inner")),
      backwardWeight: undefined,
    });
    assert.throws(() => calls.forward(outer, saved), outside);
    assert.throws(() => calls.backwardInput(outer, saved), outside);
    calls.backwardWeight(outer, saved); // its helper calls the part rightly
    assert.throws(
      () => saved.slot("a", [4], "activations"),
      /^Error: A stage asks for scratch outside a layer's function/,
    );
  });
});

test("a composite has its parts' parameters, state and side inputs, its own behind them, and adds their gradients in order", () => {
  const order: string[] = [];
  const part = (name: string, side: string): Layer => ({
    ...layerOf(() => {}),
    parameters: [parameter(`${name}.weight`, [2], "ones")],
    buffers: [stateBuffer(`${name}.mean`, [2], "zeros")],
    reads: { input: true, gradient: true, sides: [side, "seed"] },
    backwardWeight: ([saved]) => void order.push(`${name} ${saved.names()}`),
  });
  const scale = parameter("scale", [2], "ones");
  const layer = composed({ a: part("a", "lengths"), none: undefined, b: part("b", "seed") }, {
    ...layerOf(() => {}),
    reads: { gradient: true, sides: ["extra"] },
    parameters: [scale],
    backwardWeight: ([saved]) => void order.push(`own ${saved.names()}`),
  });
  assert.deepEqual(layer.parameters.map(({ name }) => name), ["a.weight", "b.weight", "scale"]);
  assert.deepEqual(layer.buffers!.map(({ name }) => name), ["a.mean", "b.mean"]);
  assert.deepEqual(layer.reads, { gradient: true, sides: ["lengths", "seed", "extra"] });
  const [device] = dryDevices(1);
  const placed = placeLayers([layer], device);
  const saved = createSaved(createGroup(placed, 1), 0);
  saved.child("b").keep("x", saved.value(scale));
  backwardWeight(layer, [saved]);
  assert.deepEqual(order, ["a ", "b b.x", "own b.x"]);
  saved.clear();
  placed.release();
  assert.equal(device.ledger.total(), 0);
});

test("layers are placed any number of times at once, each with tensors of its own, in f32 and mixed precision", () => {
  const [one, two] = dryDevices(2);
  const layer: Layer = { ...linear("l", 4, 3, { bias: true }), buffers: [stateBuffer("l.mean", [3], "zeros")] };
  const [weight, bias] = layer.parameters, [mean] = layer.buffers!;
  const placed = [placeLayers([layer], one), placeLayers([layer], one, { dtype: "f16" }), placeLayers([layer], two)];
  const tensors = placed.map((each) => ({
    ...each.parameter(weight),
    ...each.state(mean),
    bias: each.parameter(bias),
  }));
  assert.equal(new Set(tensors.map(({ gradient }) => gradient.storage)).size, 3);
  assert.equal(new Set(tensors.map(({ kept }) => kept.storage)).size, 3);
  assert.deepEqual(placed.map(({ device }) => device.rank), [0, 0, 1]);
  assert.deepEqual(placed.map((each) => each.parameter(weight).value.dtype), ["f32", "f16", "f32"]);
  for (const { master, gradient, bias } of tensors) {
    assert.deepEqual([master.dtype, gradient.dtype, gradient.shape, bias.gradient.shape], ["f32", "f32", [4, 3], [3]]);
  }
  placed[0].release();
  assert.ok(one.ledger.total() > 0, "the other on the same device stays");
  placed.slice(1).forEach((each) => each.release());
  assert.deepEqual([one.ledger.total(), two.ledger.total()], [0, 0]);
});

test("a parameter or buffer that is not placed is an error that names it", () => {
  const [device] = dryDevices(1);
  const layer = linear("l", 4, 3), other = parameter("other.weight", [2], "ones");
  const placed = placeLayers([layer], device);
  const saved = createSaved(createGroup(placed, 1), 0);
  const refused = (name: string) => ({
    message: `"${name}" is not placed: it is of none of the layers that rank 0 has here`,
  });
  assert.throws(() => saved.value(other), refused("other.weight"));
  assert.throws(() => saved.gradient(other), refused("other.weight"));
  assert.throws(() => saved.state(stateBuffer("mean", [1], "zeros")), refused("mean"));
  placed.release();
  assert.throws(() => saved.value(layer.parameters[0]), refused("l.weight"));
});
