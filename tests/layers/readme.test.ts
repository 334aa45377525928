/** The layers that lib/layers/README.md teaches with are layers. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { after, test } from "node:test";
import type { Layer } from "../../lib/layers/layer.ts";
import { close, device } from "../ops/support.ts";
import { project } from "../reference/linear.ts";
import { checkLayer, checkSkippedInputGradient } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "twobp-readme-"));
after(() => rmSync(folder, { recursive: true, force: true }));
after(close);

const readme = new URL("../../lib/layers/README.md", import.meta.url);

/** What the examples export, each run as a module that lies where the README does. */
async function examples() {
  const blocks = [...readFileSync(readme, "utf8").matchAll(/```ts\n(.*?)```/gs)].map(([, block]) => block);
  assert.equal(blocks.length, 2);
  const modules = blocks.map(async (block, index) => {
    const path = join(folder, `example${index}.ts`);
    writeFileSync(path, block.replace(/from "(\.[^"]*)"/g, (_, to) => `from "${new URL(to, readme)}"`));
    return await import(pathToFileURL(path).href);
  });
  return Object.assign({}, ...await Promise.all(modules)) as {
    projection(name: string, inputs: number, outputs: number): Layer;
    parallel(one: Layer, other: Layer): Layer;
  };
}

test("the layers in lib/layers/README.md: y, dx and all gradients equal the reference; W needs what their parts' do", async () => {
  const { projection, parallel } = await examples();
  const layer = parallel(projection("a", 6, 5), projection("b", 6, 5));
  await checkLayer(await device(), {
    layer,
    inputShape: [9, 6],
    reference(x, p) {
      const [a, b] = ["a.weight", "b.weight"].map((name) => project(x, p.get(name)!, 6));
      return Float64Array.from(a, (value, i) => value + b[i]);
    },
    keeps: ["one.x", "one.dy", "other.x", "other.dy"],
  });
  await checkSkippedInputGradient(await device(), layer, [9, 6]);
});
