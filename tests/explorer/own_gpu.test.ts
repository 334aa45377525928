/** What is said where a browser has no GPU to train on. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { findAdapter } from "../../lib/explorer/own_gpu.ts";
import { UserError } from "../../lib/errors.ts";

/** What `findAdapter` says in a browser that has this. */
async function said(globals: { navigator: object; isSecureContext: boolean }): Promise<string> {
  const before = Object.keys(globals).map((name) => [name, Object.getOwnPropertyDescriptor(globalThis, name)] as const);
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true });
  }
  try {
    return await findAdapter().then(() => "nothing", (error) => {
      assert.ok(error instanceof UserError);
      return error.message;
    });
  } finally {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else Reflect.deleteProperty(globalThis, name);
    }
  }
}

const withAdapter = (adapter: object | null) => ({
  navigator: { gpu: { requestAdapter: () => Promise.resolve(adapter) } },
  isSecureContext: true,
});

test("a browser without WebGPU, an adapter or timestamps is told so in one line, with what would be right", async () => {
  assert.match(await said({ navigator: {}, isSecureContext: true }), /^This browser has no WebGPU .*Chrome or Edge/);
  assert.match(await said({ navigator: {}, isSecureContext: false }), /^WebGPU is for secure pages alone: /);
  assert.match(await said(withAdapter(null)), /finds no GPU for it: switch hardware acceleration on/);
  const info = { vendor: "acme", architecture: "one", device: "", description: "" };
  assert.match(
    await said(withAdapter({ info, features: new Set() })),
    /^acme one has no timestamps here .*Chrome and Edge/,
  );
  assert.match(
    await said(withAdapter({ info: {}, features: new Set(["shader-f16"]) })),
    /^a GPU without a name has no timestamps/,
  );
  assert.equal(await said(withAdapter({ info, features: new Set(["timestamp-query"]) })), "nothing");
});
