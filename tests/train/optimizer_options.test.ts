import assert from "node:assert/strict";
import { after, test } from "node:test";
import { adamw, sgd } from "../../lib/train/optimizers.ts";
import { close, device, tensor } from "../ops/support.ts";

after(close);

const refused = (call: () => unknown, message: string) => assert.throws(call, { name: "UserError", message });
const rate = "a finite number, 0 or more", share = "a number, 0 or more and below 1";

test("sgd() takes a finite rate of 0 or more, and a momentum below 1", () => {
  for (const learningRate of [0, 1e-45, 0.1, 3e38]) sgd({ learningRate });
  for (const learningRate of [NaN, -1, Infinity, 1e39]) {
    refused(() => sgd({ learningRate }), `sgd: learningRate must be ${rate}, not ${learningRate}`);
  }
  for (const momentum of [0, 0.9, 1 - 2 ** -24]) sgd({ learningRate: 0.1, momentum });
  // The last number below 1 of float64 is 1 in f32.
  for (const momentum of [1, 1 - 2 ** -53, -0.1, NaN, 2, "0.9"]) {
    const shown = typeof momentum === "string" ? `"${momentum}"` : momentum;
    refused(
      () => sgd({ learningRate: 0.1, momentum: momentum as number }),
      `sgd: momentum must be ${share}, not ${shown}`,
    );
  }
});

test("sgd() without options, without a rate or with a mistyped one says what there is", () => {
  refused(() => sgd(undefined as never), "sgd takes an object with learningRate, momentum, groups, not undefined");
  refused(() => sgd(0.1 as never), "sgd takes an object with learningRate, momentum, groups, not 0.1");
  refused(() => sgd({} as never), `sgd: learningRate must be ${rate}, not undefined`);
  refused(() => sgd({ lr: 0.1 } as never), 'sgd: there is no "lr"; there are learningRate, momentum, groups');
});

test("adamw() takes finite rates and decays, betas below 1 and an epsilon above 0", () => {
  adamw();
  adamw({ learningRate: 0, betas: [0, 0], epsilon: 2 ** -126, weightDecay: 0 });
  for (const learningRate of [NaN, -1e-9, Infinity]) {
    refused(() => adamw({ learningRate }), `adamw: learningRate must be ${rate}, not ${learningRate}`);
  }
  for (const weightDecay of [NaN, -0.01, Infinity]) {
    refused(() => adamw({ weightDecay }), `adamw: weightDecay must be ${rate}, not ${weightDecay}`);
  }
  for (const betas of [[1, 0.999], [0.9, 1], [-0.1, 0.9], [NaN, 0.9], [0.9], [0.9, 0.9, 0.9]]) {
    refused(
      () => adamw({ betas: betas as [number, number] }),
      `adamw: betas must be a list of 2, each ${share}, not [${betas.join(", ")}]`,
    );
  }
  // 1e-50 is 0 in f32, where a row of an embedding that has not occurred would become 0 / 0.
  for (const epsilon of [0, -1e-8, NaN, 1e-50]) {
    refused(() => adamw({ epsilon }), `adamw: epsilon must be a finite number, above 0, not ${epsilon}`);
  }
  refused(
    () => adamw({ lr: 1e-3 } as never),
    'adamw: there is no "lr"; there are learningRate, betas, epsilon, weightDecay, groups',
  );
});

test("a step's own learning rate is checked before it counts", async () => {
  const on = await device();
  const make = () => {
    const parameters = tensor(on, [4], Float32Array.of(1, 2, 3, 4)),
      gradients = tensor(on, [4], new Float32Array(4).fill(1));
    return { parameters, optimizer: adamw().create(parameters, gradients, 4) };
  };
  const [plain, tried] = [make(), make()];
  for (const learningRate of [NaN, -1, Infinity]) {
    refused(
      () => tried.optimizer.prepare(learningRate),
      `adamw: the learning rate of a step must be ${rate}, not ${learningRate}`,
    );
  }
  const values = [];
  for (const { parameters, optimizer } of [plain, tried]) {
    optimizer.prepare(0.01);
    optimizer.step();
    values.push(new Float32Array(await on.read(parameters)));
  }
  assert.deepEqual(values[1], values[0], "the bias correction counts steps that were taken");
});
