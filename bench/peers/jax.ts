/** jax-js as a contender: each computation under one `jit`, arrays resident on the device. */
import type { Contender, Tokens, Weights } from "./contender.ts";
import { batch, gptSizes, learningRate } from "./gpt.ts";
import { load, versionOf } from "./load.ts";

/** The part of a jax-js array that is used here. An operation consumes its operands; `ref` keeps one. */
interface Arr {
  readonly ref: Arr;
  reshape(shape: readonly number[]): Arr;
  add(other: Arr | number): Arr;
  sub(other: Arr | number): Arr;
  mul(other: Arr | number): Arr;
  div(other: Arr | number): Arr;
  sum(): Arr;
  dispose(): void;
  data(): Promise<Float32Array>;
}
type Tree = Record<string, Arr>;

interface Jax {
  init(device: string): Promise<string[]>;
  defaultDevice(device: string): string;
  blockUntilReady<T>(tree: T): Promise<T>;
  jit<F>(f: F): F;
  valueAndGrad(
    f: (parameters: Tree, ids: Arr, targets: Arr) => Arr,
  ): (p: Tree, ids: Arr, targets: Arr) => [Arr, Tree];
  readonly numpy: {
    readonly int32: unknown;
    array(data: Float32Array | Int32Array, options?: { dtype: unknown }): Arr;
    matmul(a: Arr, b: Arr): Arr;
    split(a: Arr, sections: number, axis: number): Arr[];
    sqrt(a: Arr): Arr;
    power(a: number, b: Arr): Arr;
  };
  readonly nn: {
    gelu(x: Arr, options: { approximate: boolean }): Arr;
    logSoftmax(x: Arr, axis: number): Arr;
    oneHot(ids: Arr, classes: number): Arr;
    standardize(x: Arr, axis: number): Arr;
    dotProductAttention(
      q: Arr,
      k: Arr,
      v: Arr,
      options: { isCausal: boolean },
    ): Arr;
  };
}

/** Opens jax-js on WebGPU; `installWebGpu` comes before. */
export async function openJax(): Promise<Contender> {
  const jax = await load<Jax>("@jax-js/jax");
  if (!(await jax.init("webgpu")).includes("webgpu")) {
    throw new Error("jax-js found no WebGPU");
  }
  jax.defaultDevice("webgpu");
  const { numpy: np } = jax;
  return {
    name: "jax-js with jit",
    version: versionOf("@jax-js/jax"),
    matmul([m, n, k], a, b, times) {
      const x = np.array(a).reshape([m, k]), y = np.array(b).reshape([k, n]);
      const product = jax.jit((x: Arr, y: Arr) => np.matmul(x, y));
      return Promise.resolve({
        async run() {
          // All are kept to the end: what is disposed of before it was submitted is never computed.
          const all = Array.from(
            { length: times },
            () => product(x.ref, y.ref),
          );
          for (const each of await jax.blockUntilReady(all)) each.dispose();
        },
        product: () => product(x.ref, y.ref).data(),
        close() {
          x.dispose();
          y.dispose();
        },
      });
    },
    training: (weights, tokens) => Promise.resolve(createTraining(jax, weights, tokens)),
    close() {},
  };
}

function createTraining(jax: Jax, weights: Weights, tokens: Tokens) {
  const { numpy: np } = jax;
  const names = [...weights.keys()];
  const tree = (make: (name: string) => Arr): Tree => Object.fromEntries(names.map((name) => [name, make(name)]));
  const kept = (each: Tree) => tree((name) => each[name].ref);
  const array = (data: Float32Array, shape: readonly number[]) => np.array(data).reshape(shape);
  const zeros = () =>
    tree((name) =>
      array(
        new Float32Array(weights.get(name)!.data.length),
        weights.get(name)!.shape,
      )
    );
  let parameters = tree((name) => array(weights.get(name)!.data, weights.get(name)!.shape));
  let m = zeros(), v = zeros();
  let step = 0;
  const ids = np.array(Int32Array.from(tokens.inputs), { dtype: np.int32 });
  const targets = np.array(Int32Array.from(tokens.targets), {
    dtype: np.int32,
  });
  const lossAndGradients = jax.valueAndGrad((p, ids, targets) => loss(jax, p, ids, targets));

  const gradients = jax.jit((p: Tree, ids: Arr, targets: Arr) => lossAndGradients(p, ids, targets));
  /** Adam (Kingma, Ba, 2015, algorithm 1). */
  const update = jax.jit(
    (p: Tree, m: Tree, v: Tree, t: Arr, ids: Arr, targets: Arr) => {
      const [loss, g] = lossAndGradients(kept(p), ids, targets);
      const correction = {
        m: np.power(0.9, t.ref).mul(-1).add(1),
        v: np.power(0.999, t).mul(-1).add(1),
      };
      const nextM: Tree = {}, nextV: Tree = {}, next: Tree = {};
      for (const name of names) {
        nextM[name] = m[name].mul(0.9).add(g[name].ref.mul(0.1));
        nextV[name] = v[name].mul(0.999).add(
          g[name].ref.mul(g[name]).mul(0.001),
        );
        const root = np.sqrt(nextV[name].ref.div(correction.v.ref)).add(1e-8);
        next[name] = p[name].sub(
          nextM[name].ref.div(correction.m.ref).div(root).mul(learningRate),
        );
      }
      correction.m.dispose();
      correction.v.dispose();
      return [loss, next, nextM, nextV] as [Arr, Tree, Tree, Tree];
    },
  );

  return {
    async run() {
      const t = np.array(new Float32Array([++step]));
      const [loss, ...state] = update(
        parameters,
        m,
        v,
        t,
        ids.ref,
        targets.ref,
      );
      [parameters, m, v] = state;
      const [value] = await loss.data();
      await jax.blockUntilReady(kept(parameters)).then((each) => names.forEach((name) => each[name].dispose()));
      return value;
    },
    async gradients() {
      const [loss, found] = gradients(kept(parameters), ids.ref, targets.ref);
      loss.dispose();
      const read = new Map<string, Float32Array>();
      for (const name of names) read.set(name, await found[name].data());
      return read;
    },
    close() {
      for (const each of [parameters, m, v]) {
        names.forEach((name) => each[name].dispose());
      }
      ids.dispose();
      targets.dispose();
    },
  };
}

/** The mean cross entropy; consumes `p`, `ids` and `targets`. */
function loss({ numpy: np, nn }: Jax, p: Tree, ids: Arr, targets: Arr): Arr {
  const { blocks, heads, length, width, vocabulary } = gptSizes;
  const rows = batch * length;
  const linear = (x: Arr, name: string) => np.matmul(x, p[`${name}.weight`]).add(p[`${name}.bias`]);
  const norm = (x: Arr, name: string) => nn.standardize(x, -1).mul(p[`${name}.weight`]).add(p[`${name}.bias`]);
  // The gradient of np.take does not compile under jit in 0.1.25 ("routine primitive scatter input is not imm").
  let x = np.matmul(nn.oneHot(ids, vocabulary), p["embedding.token.weight"])
    .reshape([batch, length, width])
    .add(p["embedding.position.weight"]).add(p["embedding.type.weight"])
    .reshape([rows, width]);
  for (let block = 0; block < blocks; block++) {
    const [attention, mlp] = [
      `blocks.${block}.attention`,
      `blocks.${block}.mlp`,
    ];
    const packed = linear(norm(x.ref, `${attention}.norm`), `${attention}.qkv`);
    const [q, k, v] = np.split(packed, 3, 1).map((each) => each.reshape([batch, length, heads, width / heads]));
    const context = nn.dotProductAttention(q, k, v, { isCausal: true }).reshape(
      [rows, width],
    );
    x = x.add(linear(context, `${attention}.out`));
    const inside = nn.gelu(linear(norm(x.ref, `${mlp}.norm`), `${mlp}.up`), {
      approximate: true,
    });
    x = x.add(linear(inside, `${mlp}.down`));
  }
  const logits = np.matmul(norm(x, "norm"), p["head.weight"]).reshape([
    rows,
    vocabulary,
  ]);
  return nn.logSoftmax(logits, -1).mul(nn.oneHot(targets, vocabulary)).sum()
    .mul(-1 / rows);
}
