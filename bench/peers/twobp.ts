/** This project as a contender: what `openDevices`, `matmul` and `createPipeline` give, with nothing set for the occasion. */
import { readFileSync } from "node:fs";
import { adamw, createPipeline, generate, openDevices } from "twobp";
import { parametersOf } from "twobp/models";
import { empty, fromArray, matmul, release, toArray } from "twobp/ops";
import type { Contender, Weights } from "./contender.ts";
import { batch, gpt, learningRate } from "./gpt.ts";

/** Opens one device. */
export async function openTwobp(): Promise<
  Contender & { readonly adapter: string }
> {
  const set = await openDevices(1);
  const [device] = set.devices;
  const { version } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  );
  return {
    name: "twobp",
    version,
    adapter: set.adapter,
    matmul([m, n, k], a, b, times) {
      const [x, y] = [
        fromArray(device, [m, k], a, "workspace"),
        fromArray(device, [k, n], b, "workspace"),
      ];
      const out = empty(device, [m, n], "workspace");
      return Promise.resolve({
        async run() {
          for (let i = 0; i < times; i++) matmul(out, x, y);
          await device.idle();
        },
        product: () => toArray(out),
        close: () => release(x, y, out),
      });
    },
    training(weights, { inputs, targets }) {
      const model = gpt();
      const pipeline = createPipeline(set, model, {
        optimizer: adamw({ learningRate, weightDecay: 0 }),
      });
      pipeline.setParameters(
        new Map([...weights].map(([name, { data }]) => [name, data])),
      );
      const schedule = generate("naive", { devices: 1 });
      const data = { samples: batch, inputs, targets };
      return Promise.resolve({
        run: async () => (await pipeline.step(schedule, data)).loss,
        async gradients() {
          await pipeline.step(schedule, data, { optimize: false });
          const gradients = await pipeline.gradients();
          pipeline.clearGradients();
          return gradients;
        },
        close: () => pipeline.close(),
      });
    },
    close: () => set.close(),
  };
}

/** The weights that all start from: this project's initial ones. */
export async function initialWeights(): Promise<Weights> {
  const set = await openDevices(1);
  const model = gpt();
  const pipeline = createPipeline(set, model, { optimizer: adamw(), seed: 1 });
  const values = await pipeline.parameters();
  const weights = new Map(
    parametersOf(model).map((
      { name, shape },
    ) => [name, { shape: [...shape], data: values.get(name)! }]),
  );
  pipeline.close();
  set.close();
  return weights;
}
