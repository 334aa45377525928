/** TensorFlow.js on its WebGPU backend as a contender. It has no compiler: each operation is a call. */
import type { Contender, Tokens, Weights } from "./contender.ts";
import { batch, epsilon, gptSizes, learningRate } from "./gpt.ts";
import { load, versionOf } from "./load.ts";

/** The part of a TensorFlow.js tensor that is used here. */
interface Ten {
  data(): Promise<Float32Array>;
  dispose(): void;
}

/** Of the WebGPU backend: it collects calls in an encoder and submits every few of them. */
interface Backend {
  readonly queue: GPUQueue;
  readonly commandEncoder: GPUCommandEncoder | null;
  endComputePassEncoder(): void;
  submitQueue(): void;
}

interface Tf {
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
  backend(): Backend;
  tensor(
    data: Float32Array | Int32Array,
    shape: readonly number[],
    dtype?: string,
  ): Ten;
  variable(value: Ten, trainable: boolean, name: string): Ten;
  add(a: Ten, b: Ten | number): Ten;
  sub(a: Ten, b: Ten): Ten;
  mul(a: Ten, b: Ten | number): Ten;
  square(a: Ten): Ten;
  rsqrt(a: Ten): Ten;
  tanh(a: Ten): Ten;
  mean(a: Ten, axis: number, keepDims: boolean): Ten;
  reshape(a: Ten, shape: readonly number[]): Ten;
  matMul(a: Ten, b: Ten, transposeA?: boolean, transposeB?: boolean): Ten;
  transpose(a: Ten, order: readonly number[]): Ten;
  softmax(a: Ten): Ten;
  gather(a: Ten, ids: Ten): Ten;
  split(a: Ten, sections: number, axis: number): Ten[];
  oneHot(ids: Ten, depth: number): Ten;
  variableGrads(f: () => Ten): { value: Ten; grads: Record<string, Ten> };
  readonly train: {
    adam(
      rate: number,
      beta1: number,
      beta2: number,
      epsilon: number,
    ): Optimizer;
  };
  readonly losses: { softmaxCrossEntropy(targets: Ten, logits: Ten): Ten };
}

interface Optimizer {
  minimize(f: () => Ten, returnCost: boolean): Ten;
  dispose(): void;
}

/** Opens TensorFlow.js on WebGPU; `installWebGpu` comes before. */
export async function openTfjs(): Promise<Contender> {
  const tf = await load<Tf>("@tensorflow/tfjs");
  await load("@tensorflow/tfjs-backend-webgpu"); // registers itself and the gradients' operations
  if (!await tf.setBackend("webgpu")) {
    throw new Error("TensorFlow.js found no WebGPU");
  }
  await tf.ready();
  const done = () => {
    const backend = tf.backend();
    backend.endComputePassEncoder();
    if (backend.commandEncoder) backend.submitQueue();
    return backend.queue.onSubmittedWorkDone();
  };
  return {
    name: "tfjs-webgpu",
    version: versionOf("@tensorflow/tfjs"),
    matmul([m, n, k], a, b, times) {
      const x = tf.tensor(a, [m, k]), y = tf.tensor(b, [k, n]);
      return Promise.resolve({
        async run() {
          for (let i = 0; i < times; i++) tf.matMul(x, y).dispose();
          await done();
        },
        async product() {
          const product = tf.matMul(x, y);
          const data = await product.data();
          product.dispose();
          return data;
        },
        close() {
          x.dispose();
          y.dispose();
        },
      });
    },
    training: (weights, tokens) => Promise.resolve(createTraining(tf, weights, tokens, done)),
    close() {},
  };
}

function createTraining(
  tf: Tf,
  weights: Weights,
  tokens: Tokens,
  done: () => Promise<unknown>,
) {
  const { blocks, heads, length, width, vocabulary } = gptSizes;
  const rows = batch * length, size = width / heads;
  const p = Object.fromEntries(
    [...weights].map((
      [name, { shape, data }],
    ) => [name, tf.variable(tf.tensor(data, shape), true, name)]),
  );
  const ids = tf.tensor(Int32Array.from(tokens.inputs), [rows], "int32");
  const wanted = tf.oneHot(
    tf.tensor(Int32Array.from(tokens.targets), [rows], "int32"),
    vocabulary,
  );
  const mask = tf.tensor(
    Float32Array.from(
      { length: length * length },
      (_, i) => i % length > Math.floor(i / length) ? -1e9 : 0,
    ),
    [length, length],
  );
  const optimizer = tf.train.adam(learningRate, 0.9, 0.999, 1e-8);

  const linear = (x: Ten, name: string) => tf.add(tf.matMul(x, p[`${name}.weight`]), p[`${name}.bias`]);
  const norm = (x: Ten, name: string) => {
    const centred = tf.sub(x, tf.mean(x, -1, true));
    const scale = tf.rsqrt(
      tf.add(tf.mean(tf.square(centred), -1, true), epsilon),
    );
    return tf.add(
      tf.mul(tf.mul(centred, scale), p[`${name}.weight`]),
      p[`${name}.bias`],
    );
  };
  const gelu = (x: Ten) => {
    const inner = tf.mul(
      tf.add(tf.mul(tf.mul(tf.mul(x, x), x), 0.044715), x),
      Math.sqrt(2 / Math.PI),
    );
    return tf.mul(tf.mul(x, 0.5), tf.add(tf.tanh(inner), 1));
  };
  const embedded = () => {
    const tokens = tf.reshape(tf.gather(p["embedding.token.weight"], ids), [
      batch,
      length,
      width,
    ]);
    const placed = tf.add(
      tf.add(tokens, p["embedding.position.weight"]),
      p["embedding.type.weight"],
    );
    return tf.reshape(placed, [rows, width]);
  };
  const attended = (x: Ten, name: string) => {
    const [q, k, v] = tf.split(linear(x, `${name}.qkv`), 3, 1).map((each) =>
      tf.transpose(tf.reshape(each, [batch, length, heads, size]), [0, 2, 1, 3])
    );
    const scores = tf.add(
      tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(size)),
      mask,
    );
    const context = tf.transpose(tf.matMul(tf.softmax(scores), v), [
      0,
      2,
      1,
      3,
    ]);
    return linear(tf.reshape(context, [rows, width]), `${name}.out`);
  };
  const loss = () => {
    let x = embedded();
    for (let block = 0; block < blocks; block++) {
      const [attention, mlp] = [
        `blocks.${block}.attention`,
        `blocks.${block}.mlp`,
      ];
      x = tf.add(x, attended(norm(x, `${attention}.norm`), attention));
      x = tf.add(
        x,
        linear(
          gelu(linear(norm(x, `${mlp}.norm`), `${mlp}.up`)),
          `${mlp}.down`,
        ),
      );
    }
    return tf.losses.softmaxCrossEntropy(
      wanted,
      tf.matMul(norm(x, "norm"), p["head.weight"]),
    );
  };

  return {
    async run() {
      const value = optimizer.minimize(loss, true);
      const [number] = await value.data();
      value.dispose();
      await done();
      return number;
    },
    async gradients() {
      const { value, grads } = tf.variableGrads(loss);
      value.dispose();
      const read = new Map<string, Float32Array>();
      for (const [name, gradient] of Object.entries(grads)) {
        read.set(name, await gradient.data());
        gradient.dispose();
      }
      return read;
    },
    close() {
      optimizer.dispose();
      for (const each of [...Object.values(p), ids, wanted, mask]) {
        each.dispose();
      }
    },
  };
}
