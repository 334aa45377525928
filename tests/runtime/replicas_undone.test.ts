/** A failure anywhere, on any replica, in an action or in a sum: the step has never happened on any of them. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { connectPipeline, type Pipeline } from "../../lib/runtime/pipeline.ts";
import type { Transport } from "../../lib/runtime/transport.ts";
import { inProcess } from "../../lib/runtime/transports/in_process.ts";
import { worldOf } from "../../lib/runtime/world.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { formatAction } from "../../lib/schedules/schedule.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { adamw, type OptimizerSpec } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { deep, randomBatch, tinyModel } from "./support.ts";

let set: DeviceSet;
before(async () => {
  set = await openDevices(4, { virtual: false });
});
after(() => set.close());

const schedule = twoStage(generate("1f1b-1", { devices: 2, microbatches: 2 }));
const images = () => resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 });
const pictures = (seed: number) => syntheticImages({ size: 8, classes: 3, seed }).next(8);
const text = (seed: number) => randomBatch(deep, 8, seed);

/** Where the next failure is: on a device, in an action, an optimizer, or a message. */
let fault: { peer: number; at: string } | undefined;

function meet(peer: number, at: string): void {
  if (fault?.peer !== peer || fault.at !== at) return;
  fault = undefined;
  throw new Error("something broke");
}

const meetOn = ({ rank, activity }: Device) => meet(rank, activity);

function fragile(layer: Layer): Layer {
  return {
    ...layer,
    forward(y, x, saved) {
      meetOn(y.device);
      layer.forward(y, x, saved);
    },
    backwardInput(dx, dy, saved) {
      meetOn(dy.device);
      layer.backwardInput(dx, dy, saved);
    },
    backwardWeight(saved) {
      layer.backwardWeight!(saved);
      meetOn(saved[0].device);
    },
  };
}

const adam = adamw({ learningRate: 0.01 });
const optimizer: OptimizerSpec = {
  ...adam,
  create(parameters, ...rest) {
    const made = adam.create(parameters, ...rest);
    const step = () => {
      meet(parameters.device.rank, "optimizer");
      made.step();
    };
    return { ...made, step };
  },
};

/** Transports whose messages of sums, which have negative numbers, fail on one side or the other: when a sum begins, and in its midst. */
const fragileTransports = (devices: readonly Device[]) =>
  inProcess(devices).map((transport, peer): Transport => ({
    ...transport,
    send(to, id, tensor) {
      if (id < 0) meet(peer, devices[peer].activity === "optimizer" ? "sent parameters" : "sent sum");
      return transport.send(to, id, tensor);
    },
    async receive(from, id, target) {
      await transport.receive(from, id, target);
      if (id < 0) meet(peer, "received sum");
    },
  }));

function build(model: Model, shardOptimizer: boolean): Pipeline {
  const parts = partition(model, 2).map(([first, ...others]) => [fragile(first), ...others]);
  return connectPipeline(
    set,
    model,
    { parts, optimizer, replicas: 2, shardOptimizer, seed: 3 },
    worldOf(set, fragileTransports),
  );
}

async function stateOf(pipeline: Pipeline) {
  const state = await pipeline.parameters();
  for (const [name, values] of await pipeline.gradients()) state.set(`gradient of ${name}`, values);
  for (const [name, values] of await pipeline.state()) state.set(name, values);
  for (const [name, values] of (await pipeline.optimizerState()).values) state.set(name, values);
  return state;
}

const actions = schedule.actions.flatMap((list, rank) => list.map((action) => ({ rank, at: formatAction(action) })));
const ends = ["optimizer", "sent sum", "received sum"].flatMap((at) => [0, 1].map((rank) => ({ rank, at })));
const places = [...actions, ...ends];

for (
  const [name, make, batchOf, sharded] of [
    ["images", images, pictures, false],
    ["text, whose optimizer is shared out", () => tinyModel(deep), text, true],
  ] as const
) {
  test(`a failure on either replica of a model of ${name} has never happened on both, and what follows is as without it, bit for bit`, async () => {
    // Of the second model the ends alone: its actions fail as those of the first do.
    const tried = name === "images" ? places : ends;
    const calm = build(make(), sharded);
    for (let step = 0; step <= tried.length; step++) await calm.step(schedule, batchOf(step));
    const expected = await stateOf(calm);
    calm.close();
    const pipeline = build(make(), sharded);
    let before = await stateOf(pipeline);
    for (const [step, { rank, at }] of tried.entries()) {
      const replica = step % 2 ? 0 : 1, inUse = set.devices.map(({ ledger }) => ledger.total());
      fault = { peer: 2 * replica + rank, at };
      await assert.rejects(
        pipeline.step(schedule, batchOf(1000)),
        new RegExp(`^RankError: Rank ${rank} of replica ${replica} failed at [^:]*: something broke$`),
        at,
      );
      assert.equal(fault, undefined, `${at} was met`);
      assert.deepEqual(await stateOf(pipeline), before, `after a failure at ${at}`);
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), inUse);
      await pipeline.step(schedule, batchOf(step));
      before = await stateOf(pipeline);
    }
    await pipeline.step(schedule, batchOf(tried.length));
    assert.deepEqual(await stateOf(pipeline), expected);
    pipeline.close();
  });
}

test("a failure when parameters are passed on, which is too late for the step to be undone, ends the pipeline and hangs nobody", async () => {
  for (const peer of [0, 3]) {
    const pipeline = build(tinyModel(deep), true);
    await pipeline.step(schedule, text(1));
    fault = { peer, at: "sent parameters" };
    const told = new RegExp(
      `^The pipeline cannot go on: Rank \\d of replica \\d failed while it updated its parameters: .*something broke`,
    );
    await assert.rejects(pipeline.step(schedule, text(2)), { message: told });
    assert.equal(fault, undefined);
    await assert.rejects(pipeline.step(schedule, text(3)), { message: told });
    pipeline.close();
  }
});
