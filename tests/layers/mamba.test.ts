import { after, test } from "node:test";
import { mambaMixer } from "../../lib/layers/mamba.ts";
import { preNorm } from "../../lib/layers/residual.ts";
import { rmsNorm } from "../../lib/layers/rms_norm.ts";
import { close, device } from "../ops/support.ts";
import { causalConv } from "../reference/causal_conv.ts";
import { project } from "../reference/linear.ts";
import { rmsNorm as rmsNormOf } from "../reference/norm.ts";
import { selectiveScan } from "../reference/scan.ts";
import { checkLayer, checkSkippedInputGradient, type Reference } from "./support.ts";

after(close);

const columns = (values: Float64Array, width: number, from: number, to: number) =>
  values.filter((_, i) => i % width >= from && i % width < to);

const mixerReference =
  (width: number, inner: number, state: number, rank: number, length: number): Reference => (x, p) => {
    const of = (name: string) => p.get(`m.${name}`)!;
    const xz = project(x, of("in_proj.weight"), width);
    const convolved = causalConv(columns(xz, 2 * inner, 0, inner), of("conv1d.weight"), of("conv1d.bias"), length);
    const projection = project(convolved, of("x_proj.weight"), inner);
    const take = (from: number, to: number) => columns(projection, rank + 2 * state, from, to);
    const { out } = selectiveScan({
      x: convolved,
      dtRaw: project(take(0, rank), of("dt_proj.weight"), rank),
      b: take(rank, rank + state),
      c: take(rank + state, rank + 2 * state),
      z: columns(xz, 2 * inner, inner, 2 * inner),
      aLog: of("A_log"),
      d: of("D"),
      dtBias: of("dt_proj.bias"),
    }, length);
    return project(out, of("out_proj.weight"), inner);
  };

const always = [
  ...["in_proj.x", "in_proj.dy", "convolved", "projection", "dprojection", "dt", "out_proj.x", "out_proj.dy"],
  ...["conv_weight_sums", "conv_bias_sums"],
];
const keeps = [...always, "scan_sums"], keepsForSums = [...always, "dscan"];

// With sequences of 32 the slots of neighbours touch, and one kernel takes both.
for (const [rank, length] of [[4, 5], [3, 17], [1, 1], [4, 32]]) {
  const sizes = `rank ${rank}, sequences of ${length}`;
  test(`Mamba mixer (${sizes}): y, dx and all gradients equal the reference; states and gate are released after I`, async () => {
    await checkLayer(await device(), {
      layer: mambaMixer("m", { width: 4, expand: 2, state: 4, rank, length, outputBound: 0.1 }),
      inputShape: [2 * length, 4],
      reference: mixerReference(4, 8, 4, rank, length),
      keeps,
      keepsForSums,
    });
  });
}

test("Mamba block: y, dx and all gradients equal the reference", async () => {
  const mixer = mixerReference(4, 8, 4, 3, 8);
  await checkLayer(await device(), {
    layer: preNorm(
      rmsNorm("norm", 4),
      mambaMixer("m", { width: 4, expand: 2, state: 4, rank: 3, length: 8, outputBound: 0.1 }),
    ),
    inputShape: [16, 4],
    reference: (x, p, sides) => {
      const inside = mixer(rmsNormOf(x, p.get("norm.weight")!).y, p, sides);
      return Float64Array.from(x, (value, i) => value + inside[i]);
    },
    keeps: ["norm.dgain", ...keeps.map((name) => `inner.${name}`)],
    keepsForSums: ["norm.x", "norm.rstd", "norm.dy", ...keepsForSums.map((name) => `inner.${name}`)],
  });
});

test("a Mamba mixer without an input gradient has the same weight gradients", async () => {
  const layer = mambaMixer("m", { width: 4, expand: 2, state: 4, rank: 3, length: 4, outputBound: 0.1 });
  await checkSkippedInputGradient(await device(), layer, [8, 4]);
});
