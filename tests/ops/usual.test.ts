import assert from "node:assert/strict";
import { after, test } from "node:test";
import { deviceKinds } from "../../lib/gpu/kind.ts";
import type { GpuInfo } from "../../lib/gpu/gpu.ts";
import { attentionWays } from "../../lib/ops/attention.ts";
import { usual } from "../../lib/ops/usual.ts";
import { close, device, everyOperation } from "./support.ts";

after(close);

const attended = { sequences: 2, heads: 4, headSize: 32, length: 256, causal: true };

test("every name in the table of what a kind of device is given is a candidate: none would be passed over for its spelling", async () => {
  const all = await everyOperation();
  const named = (...operations: string[]) =>
    all.filter(({ name }) => operations.includes(name)).flatMap(({ candidates }) => candidates.map(({ name }) => name));
  for (const kind of deviceKinds) {
    const { rows, matmul, convolution, attention, fusedAttention, scan } = usual[kind];
    const lists: [string[], readonly string[]][] = [
      [named("softmax"), rows],
      [named("selectiveScan"), scan],
      [attentionWays.map(({ name }) => name), [fusedAttention]],
      ...[1, 6, 100].map((count): [string[], readonly string[]] => [named("matmul"), matmul(count)]),
      ...[8, 64].map((outputs): [string[], readonly string[]] => [named("conv2d"), convolution(outputs)]),
      ...[16, 32, 64].flatMap((headSize) =>
        [16, 128, 8192].map((length): [string[], readonly string[]] => [
          named("attention"),
          attention({ ...attended, headSize, length }),
        ])
      ),
    ];
    for (const [known, names] of lists) {
      assert.ok(names.length > 0);
      assert.deepEqual(names.filter((name) => !known.includes(name)), [], kind);
    }
  }
});

test("SwiftShader makes attention of products, but for thin heads, and where the scores of a layer would not fit a binding", () => {
  const { attention } = usual.swiftshader;
  assert.deepEqual(attention(attended), ["composed"]);
  assert.deepEqual(attention({ ...attended, headSize: 16 }), ["attention_subgroup"]);
  assert.deepEqual(attention({ ...attended, headSize: 16, causal: false }), ["composed"]);
  assert.deepEqual(attention({ ...attended, length: 2048 }), ["composed"]); // 128 MiB
  assert.deepEqual(attention({ ...attended, length: 2052 }), ["attention_subgroup"]);
});

test("a device knows which kind it is: a processor that is not SwiftShader counts as lavapipe", async () => {
  const { kind, software, identity }: GpuInfo = (await device()).gpu.info;
  assert.equal(kind, !software ? "gpu" : /swiftshader/i.test(identity) ? "swiftshader" : "lavapipe");
});
