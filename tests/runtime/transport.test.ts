/** What ranks tell one another, by the transport of one process and by one that passes nothing but bytes. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Device } from "../../lib/gpu/device.ts";
import { type DeviceSet, openDevices } from "../../lib/gpu/devices.ts";
import type { Layer } from "../../lib/layers/layer.ts";
import { linear } from "../../lib/layers/linear.ts";
import type { Model } from "../../lib/models/model.ts";
import { resnet } from "../../lib/models/resnet.ts";
import { fill } from "../../lib/ops/elementwise.ts";
import { type Finding, verdictOf } from "../../lib/runtime/finish.ts";
import { partition } from "../../lib/runtime/partition.ts";
import { connectPipeline } from "../../lib/runtime/pipeline.ts";
import { piecesOf } from "../../lib/runtime/pieces.ts";
import { promised } from "../../lib/runtime/promised.ts";
import { type Connect, worldOf } from "../../lib/runtime/world.ts";
import { beginSums, messagesOf, type Sums } from "../../lib/runtime/replica_sums.ts";
import { RankError, type Transport } from "../../lib/runtime/transport.ts";
import { inProcess } from "../../lib/runtime/transports/in_process.ts";
import { reduceByMessages } from "../../lib/runtime/transports/reduce.ts";
import type { Schedule } from "../../lib/schedules/schedule.ts";
import { generate } from "../../lib/schedules/generators/generate.ts";
import { twoStage } from "../../lib/schedules/transforms/two_stage.ts";
import { empty, fromArray, release, toArray } from "../../lib/tensor.ts";
import type { Batch } from "../../lib/train/data.ts";
import { adamw } from "../../lib/train/optimizers.ts";
import { syntheticImages } from "../../lib/train/synthetic_images.ts";
import { deep, randomBatch, tinyModel } from "./support.ts";

let real: DeviceSet, virtual: DeviceSet;
before(async () => [real, virtual] = [await openDevices(2), await openDevices(3, { virtual: true })]);
after(() => [real, virtual].forEach((set) => set.close()));

const later = () => new Promise((resolve) => setTimeout(resolve, Math.random() * 3));

/**
 * A network of ranks in which only bytes travel, each message late and in an order of its own. A rank's end of it knows its own
 * device, its own number and how many there are, as a process of its own would.
 */
function byWire(ends: readonly Device[]): readonly Transport[] {
  const inboxes = ends.map(() => new Map<string, ReturnType<typeof promised<Uint8Array>>>());
  const failed: ((message: Uint8Array) => void)[] = [];
  const slotIn = (rank: number, key: string) => {
    let slot = inboxes[rank].get(key);
    if (!slot) inboxes[rank].set(key, slot = promised());
    return slot;
  };
  const deliver = async (to: number, key: string, bytes: Uint8Array) => {
    const copy = bytes.slice();
    await later();
    slotIn(to, key).resolve(copy);
  };
  return ends.map((device, own): Transport => {
    const others = [...ends.keys()].filter((rank) => rank !== own);
    let round = 0, step = 0;
    let failure: RankError | undefined;
    const waits = new Set<(error: RankError) => void>();
    failed[own] = (message) => {
      failure = new RankError(new TextDecoder().decode(message));
      for (const reject of waits) reject(failure);
    };
    /** The bytes of a message, unless a rank fails. */
    const arrival = async (key: string): Promise<Uint8Array> => {
      if (failure) throw failure;
      const { promise, reject } = promised<never>();
      waits.add(reject);
      const bytes = await Promise.race([slotIn(own, key).promise, promise]).finally(() => waits.delete(reject));
      inboxes[own].delete(key);
      return bytes;
    };
    const transport: Transport = {
      send(to, id, tensor) {
        const read = device.startRead(tensor);
        const key = `${step}: ${own} to ${to}, ${id}`;
        return () => void read().then((bytes) => deliver(to, key, new Uint8Array(bytes)), () => {});
      },
      async receive(from, id, target) {
        assert.equal(target.device, device);
        const bytes = await arrival(`${step}: ${from} to ${own}, ${id}`);
        assert.equal(bytes.length, target.bytes);
        const words = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
        words.set(bytes);
        device.write(target, words.buffer);
      },
      reduce: (ranks, id, tensor) => reduceByMessages(transport, own, ranks, id, tensor),
      async agree<Told>(told: Told) {
        const bytes = new TextEncoder().encode(JSON.stringify(told));
        const name = `${step}: record ${round++}`;
        for (const to of others) deliver(to, `${name} of ${own}`, bytes);
        const all: Told[] = [];
        for (const rank of ends.keys()) {
          const record = rank === own ? bytes : await arrival(`${name} of ${rank}`);
          all.push(JSON.parse(new TextDecoder().decode(record)));
        }
        return all;
      },
      fail({ message }) {
        const bytes = new TextEncoder().encode(message);
        for (const to of others) later().then(() => failed[to](bytes));
      },
      async recover() {
        await new Promise((resolve) => setTimeout(resolve, 20)); // the news of the failure has come by then
        failure = undefined;
        step++; // messages of the step that failed have other keys than those to come
        round = 0;
        inboxes[own].clear();
      },
      close() {},
    };
    return transport;
  });
}

/** Every transport; a new one is added here. The others must give the bits of the first. */
const transports: readonly Connect[] = [inProcess, byWire];

/** The tiny model with its head tied to the embedding: under zb-v both are on rank 0. */
function tiedModel(): Model {
  const model = tinyModel(deep);
  const head = linear("tied_head", deep.width, deep.vocabulary, { transposed: true });
  const blocks = model.layers.slice(0, -1);
  return { ...model, layers: [...blocks, head], tied: [[blocks[0].parameters[0], head.parameters[0]]] };
}

/** The tiny model with a matrix of its first block tied to that of its second: under zb-v they are on ranks of their own. */
function blocksTied(): Model {
  const model = tinyModel(deep);
  const [one, other] = [1, 3].map((layer) => model.layers[layer].parameters.find(({ shape }) => shape.length > 1)!);
  return { ...model, tied: [[one, other]] };
}

type Case = readonly [make: () => Model, schedule: Schedule, batchOf: (seed: number) => Batch];
const text = (seed: number) => randomBatch(deep, 8, seed);
const cases: Readonly<Record<string, Case>> = {
  "zb-v with tied weights on one rank": [tiedModel, generate("zb-v", { devices: 2, microbatches: 4 }), text],
  "zb-v with tied weights on two ranks": [blocksTied, generate("zb-v", { devices: 2, microbatches: 4 }), text],
  "zb-v on three ranks of one GPU": [
    () => tinyModel({ ...deep, blocks: 5 }),
    generate("zb-v", { devices: 3, microbatches: 6 }),
    (seed) => randomBatch(deep, 12, seed),
  ],
  "1f1b-2 with 2BP and tied weights on two ranks": [
    tiedModel,
    twoStage(generate("1f1b-2", { devices: 2 }), { width: 2 }),
    text,
  ],
  "interleaved-1f1b with 2BP and tied weights on two ranks": [
    tiedModel,
    twoStage(generate("interleaved-1f1b", { devices: 2, microbatches: 4 })),
    text,
  ],
  "1f1b-1 of a ResNet": [
    () => resnet("r", { block: "basic", blocks: [1, 1], width: 4, stem: "3x3", size: 8, classes: 3 }),
    generate("1f1b-1", { devices: 2 }),
    (seed) => syntheticImages({ size: 8, classes: 3, seed }).next(4),
  ],
};

/** A layer that fails in its next forward, when it is told to. */
function fragile(layer: Layer, isBroken: () => boolean): Layer {
  return {
    ...layer,
    forward(y, x, saved) {
      if (isBroken()) throw new Error("the layer is broken");
      layer.forward(y, x, saved);
    },
  };
}

for (const [name, [make, schedule, batchOf]] of Object.entries(cases)) {
  for (const precision of ["f32", "mixed"] as const) {
    test(`${name}, ${precision}: ranks that exchange nothing but bytes train to the same bits, and survive a failure as in one process`, async (t) => {
      const set = schedule.actions.length === 2 ? real : virtual;
      if (precision === "mixed" && !set.devices[0].gpu.info.f16) return t.skip("this device has no f16");
      const inUse = set.devices.map(({ ledger }) => ledger.total());
      const train = async (connect: Connect) => {
        const model = make();
        let broken = false;
        const parts = partition(model, schedule.placement.length);
        const last = parts[parts.length - 1];
        last[0] = fragile(last[0], () => broken);
        const options = { optimizer: adamw({ learningRate: 0.01 }), placement: schedule.placement, parts, seed: 3 };
        const pipeline = connectPipeline(set, model, { ...options, precision }, worldOf(set, connect));
        if (name.includes("on two ranks")) assert.deepEqual(pipeline.end.reduceFrom?.(0), [1]);
        const outcomes: unknown[] = [];
        for (let step = 0; step < 4; step++) {
          broken = step === 2;
          const { loss, overflow, skipped } = await pipeline.step(schedule, batchOf(step)).catch((error) => {
            assert.match(String(error), /^RankError: Rank \d failed at \dF\d: the layer is broken$/);
            return error;
          });
          outcomes.push(loss, overflow, skipped, await pipeline.parameters());
        }
        broken = false;
        await pipeline.step(schedule, batchOf(9), { optimize: false });
        outcomes.push(await pipeline.gradients(), await pipeline.state());
        pipeline.close();
        return outcomes;
      };
      const expected = await train(inProcess);
      for (const connect of transports.slice(1)) assert.deepEqual(await train(connect), expected);
      assert.deepEqual(set.devices.map(({ ledger }) => ledger.total()), inUse);
    });
  }
}

test("a sum over ranks is the same on all of them, bit for bit, and that of float64 but for rounding", async () => {
  for (const connect of transports) {
    const { devices } = virtual;
    const inUse = devices.map(({ ledger }) => ledger.total());
    const values = devices.map((_, rank) => Float32Array.from({ length: 37 }, (_, i) => Math.sin(1 + i * 1.7 + rank)));
    const ends = connect(devices);
    for (const ranks of [[0, 1, 2], [2, 0], [1, 2, 0]]) {
      const results = await Promise.all(ranks.map(async (rank) => {
        const device = devices[rank];
        const tensor = fromArray(device, [37], values[rank], "gradients");
        const sum = ends[rank].reduce(ranks, 5, tensor);
        device.submit();
        sum.post();
        sum.record();
        const commands = device.finish();
        await sum.arrive();
        device.submit(commands);
        sum.release();
        const result = await toArray(tensor);
        release(tensor);
        return result;
      }));
      for (const result of results) assert.deepEqual(result, results[0]);
      results[0].forEach((value, i) => {
        const exact = ranks.reduce((total, rank) => total + values[rank][i], 0);
        assert.ok(Math.abs(value - exact) < 1e-6, `${ranks}, ${i}: ${value}, not ${exact}`);
      });
    }
    ends.forEach((transport) => transport.close());
    assert.deepEqual(devices.map(({ ledger }) => ledger.total()), inUse);
  }
});

test("sums over replicas are made in pieces and buckets, the same bits on all of them, and those of float64 but for rounding", async () => {
  const lengths = [448, 64]; // seven grains and one: pieces of several lengths, and of none
  for (const connect of transports) {
    for (const { devices } of [real, virtual]) {
      const count = devices.length, before = devices.map(({ ledger }) => ledger.total());
      const ends = connect(devices), replicas = [...ends.keys()];
      const values = replicas.map((replica) =>
        lengths.map((length) => Float32Array.from({ length }, (_, i) => Math.sin(1 + i * 1.7 + 3 * replica)))
      );
      for (const gathered of [true, false]) {
        const sums: Sums[] = [], inUse: number[] = [];
        const tensors = values.map((own, replica) =>
          own.map((each) => fromArray(devices[replica], [each.length], each, "gradients"))
        );
        const pieces = lengths.map((length) => piecesOf(length, count, 64));
        for (const replica of replicas) {
          let id = 7;
          const summands = tensors[replica].map((tensor, at) => {
            const summand = { tensor, pieces: pieces[at], gathered, id };
            id += messagesOf(summand, 128);
            return summand;
          });
          await later();
          sums.push(beginSums({ replica, replicas, transport: ends[replica] }, summands, 128));
          inUse.push(devices[replica].ledger.live.workspace);
        }
        await Promise.all(sums.map((each) => each.ended()));
        devices.forEach(({ ledger }, at) => assert.equal(ledger.live.workspace, inUse[at], "taken at the beginning"));
        sums.forEach((each) => each.release());
        const results = await Promise.all(tensors.map((own) => Promise.all(own.map(toArray))));
        for (const replica of replicas) {
          for (const [at, length] of lengths.entries()) {
            for (let i = 0; i < length; i++) {
              const owner = pieces[at].findIndex(({ start, end }) => start <= i && i < end);
              const exact = values.reduce((sum, own) => sum + own[at][i], 0);
              const found = results[replica][at][i];
              if (gathered) assert.equal(found, results[owner][at][i]);
              if (gathered || replica === owner) assert.ok(Math.abs(found - exact) < 1e-6, `${found}, not ${exact}`);
              else assert.equal(found, values[replica][at][i], "what others add up is left as it was");
            }
          }
        }
        release(...tensors.flat());
      }
      ends.forEach((transport) => transport.close());
      assert.deepEqual(devices.map(({ ledger }) => ledger.total()), before);
    }
  }
});

test("a sum comes to its end while the rank waits with a recording that has given back its memory", async () => {
  for (const connect of transports) {
    for (const { devices } of [real, virtual]) {
      const ends = connect(devices), replicas = [...ends.keys()];
      const pieces = piecesOf(256, devices.length, 64);
      const tensors = devices.map((device) => fromArray(device, [256], new Float32Array(256).fill(1), "gradients"));
      const sums = devices.map((device, replica) => {
        const [own] = [beginSums({ replica, replicas, transport: ends[replica] }, [
          { tensor: tensors[replica], pieces, gathered: true, id: 0 },
        ])];
        // As an action does: it fills memory of all sizes that a sum has, gives it back, and waits.
        for (const elements of [64, 128, 192, 256]) {
          const scratch = empty(device, [elements], "workspace");
          fill(scratch, 1000);
          release(scratch);
        }
        return { own, commands: device.finish() };
      });
      await Promise.all(sums.map(({ own }) => own.ended()));
      devices.forEach((device, at) => device.submit(sums[at].commands));
      sums.forEach(({ own }) => own.release());
      for (const tensor of tensors) {
        assert.deepEqual(await toArray(tensor), new Float32Array(256).fill(devices.length));
        release(tensor);
      }
      ends.forEach((transport) => transport.close());
    }
  }
});

test("messages meet by sender, receiver and number, in whichever order they are sent and waited for", async () => {
  for (const connect of transports) {
    for (const { devices } of [real, virtual]) {
      const ends = connect(devices);
      const [one, other] = devices;
      const source = [7, 8, 9].map((value) => fromArray(one, [1], Float32Array.of(value), "workspace"));
      const target = [0, 0, 0].map(() => empty(other, [1], "workspace"));
      const waits = [ends[1].receive(0, 2, target[2])]; // before it is sent
      const posts = source.map((tensor, id) => ends[0].send(1, id, tensor));
      release(...source); // the copies are recorded
      one.submit();
      posts.reverse().forEach((post) => post());
      for (const id of [1, 0]) waits.push(ends[1].receive(0, id, target[id]));
      await Promise.all(waits);
      assert.deepEqual(await Promise.all(target.map(async (each) => (await toArray(each))[0])), [7, 8, 9]);
      release(...target);
      ends.forEach((transport) => transport.close());
    }
  }
});

test("ranks agree when all have told, on the records of all by rank, round after round", async () => {
  for (const connect of transports) {
    const ends = connect(virtual.devices);
    for (const order of [[0, 1, 2], [2, 1, 0], [1, 2, 0]]) {
      let known = 0;
      const answers: Promise<readonly { rank: number }[]>[] = [];
      for (const rank of order) {
        await later();
        assert.equal(known, 0);
        const answer = ends[rank].agree({ rank });
        answer.then(() => known++);
        answers.push(answer);
      }
      for (const answer of await Promise.all(answers)) {
        assert.deepEqual(answer, [{ rank: 0 }, { rank: 1 }, { rank: 2 }]);
      }
    }
  }
});

test("a rank that fails ends every wait of the others, those that begin after it as well, until all recover", async () => {
  for (const connect of transports) {
    const ends = connect(virtual.devices);
    const [failing, ...others] = ends;
    const target = others.map((_, at) => empty(virtual.devices[1 + at], [4], "workspace"));
    const waits = () =>
      others.flatMap((transport, at) => [transport.receive(0, 3, target[at]), transport.agree({ losses: 1 })]);
    const failed = { name: "RankError", message: "Rank 0 failed at 0F0: no reason" };
    const early = waits().map((wait) => assert.rejects(wait, failed));
    await later();
    failing.fail(new RankError(failed.message));
    await Promise.all(early);
    await Promise.all(waits().map((wait) => assert.rejects(wait, failed)));
    await Promise.all(ends.map((transport) => transport.recover()));
    const told = await Promise.all(ends.map((transport, rank) => transport.agree(rank)));
    assert.deepEqual(told, [[0, 1, 2], [0, 1, 2], [0, 1, 2]]);
    release(...target);
    ends.forEach((transport) => transport.close());
  }
});

test("the verdict is what the lowest rank has found, with the losses of all", () => {
  const findings: Finding[] = [{}, { notFinite: "b" }, { notFinite: "c", losses: 7 }];
  assert.deepEqual(verdictOf(findings), { losses: 7, found: { rank: 1, parameter: "b" }, clipped: 1 });
  assert.deepEqual(verdictOf([{ losses: 2.5 }, {}]), { losses: 2.5, found: undefined, clipped: 1 });
  const squares = [{ losses: 1, squares: 9 }, { squares: 16 }];
  assert.equal(verdictOf(squares, { clip: 2 }).clipped, 2 / (5 + 1e-6));
  assert.equal(
    verdictOf(squares, { clip: 2, lossScale: { value: 4, canShrink: true } }).clipped,
    1,
    "1.25 without the scale",
  );
});

test("a generation draws the same tokens from the same bits whatever the transport", async () => {
  const made: unknown[] = [];
  for (const connect of transports) {
    const options = { optimizer: adamw(), seed: 3, placement: [0, 1, 1, 0] };
    const pipeline = connectPipeline(real, tinyModel(deep), options, worldOf(real, connect));
    const logits: Float32Array[] = [];
    const { tokens } = await pipeline.generate([1, 2, 3], { tokens: 6, onToken: (each) => logits.push(each.logits) });
    assert.equal(tokens.length, 6);
    made.push({ tokens, logits });
    pipeline.close();
  }
  assert.deepEqual(made[1], made[0]);
});
