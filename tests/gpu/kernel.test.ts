/** Kernels from text: what they compute, and what is said of those that are wrong. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { dryDevices } from "../../lib/gpu/dry.ts";
import { kernel, type KernelText, source } from "../../lib/gpu/kernel.ts";
import { lanes } from "../../lib/ops/elementwise.ts";
import { empty, release, toArray } from "../../lib/tensor.ts";
import { assertTensor, close, device, dirty, normal, tensor } from "../ops/support.ts";

after(close);

/** y = factor * x + shift, where what is no number stays so. */
const text = `
struct Parameters {
  count: u32,
  factor: f32,
  shift: vec2f, // the first of the two counts
}

alias T1 = f32;
alias T2 = f32;

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> y: array<T1>;
@group(0) @binding(2) var<storage, read> x: array<T2>;

#include "not_finite"

@compute @workgroup_size(64)
fn line(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < p.count) { y[id.x] = T1(rectified(p.factor * f32(x[id.x]) + p.shift.x)); }
}
`;

test("a kernel from text computes, is given its parameters by name, and may include words of kernels/include", async () => {
  const on = await device(), x = normal(100, 1);
  const y = dirty(on, [100]), input = tensor(on, [100], x);
  on.dispatch(
    kernel({ wgsl: text, entry: "line" }),
    { count: 100, factor: 3, shift: [0.5, 9] },
    [y, input],
    lanes(100),
  );
  await assertTensor(y, Float64Array.from(x, (value) => Math.max(0, 3 * value + 0.5)), 1e-6);
  release(input);
});

test("a kernel from text that declares so reads and writes f16", async () => {
  const on = await device();
  if (!on.gpu.info.f16) return;
  const y = dirty(on, [3], "f16"), input = tensor(on, [3], new Float32Array([1, 2, -4]), "f16");
  on.dispatch(kernel({ wgsl: text, entry: "line" }), { count: 3, factor: 2, shift: [1, 0] }, [y, input], lanes(3));
  assert.deepEqual([...await toArray(y)], [3, 5, 0]);
  release(y, input);
});

test("kernels of the same text and entry are one, of different texts two, whatever they are called", () => {
  const other = text.replace("p.shift.x", "p.shift.y");
  const [first, again, changed] = [text, text, other].map((wgsl) => kernel({ wgsl, entry: "line", name: "same" }));
  assert.equal(first.id, again.id);
  assert.notEqual(first.id, changed.id);
});

test("a kernel from text that cannot be one is refused where it is named", () => {
  const refused = (change: object, message: string) => {
    assert.throws(() => kernel({ wgsl: text, entry: "line", ...change } as KernelText), { name: "UserError", message });
  };
  refused({ entry: "lines" }, 'kernel "lines": the text has no function lines with @compute; it has line');
  refused({ wgsl: "fn line() {}" }, 'kernel "line": the text has no function line with @compute; there is none');
  refused({ wgsl: undefined }, "kernel: wgsl must be a string, not undefined");
  refused({ wgls: text }, 'kernel: there is no "wgls"; there are wgsl, entry, name');
  refused({ wgsl: `${text}#repaet i 0 2`, name: "mine" }, 'kernel "mine":21: unknown directive #repaet');
  refused({ wgsl: '#include "mine"' }, 'kernel "line":1: there is no kernels/include/mine.wgsl');
  refused({ wgsl: text.replace("factor: f32", "factor: f16") }, 'kernel "line": no parameter can be of type f16');
});

test("parameters that do not fit, and f16 that a text has no form for, are refused when they are given", () => {
  const [on] = dryDevices(1);
  const y = empty(on, [4], "activations"), half = empty(on, [4], "activations", "f16");
  const own = kernel({ wgsl: text.replace("alias T2 = f32;", "alias T2 = u32;"), entry: "line", name: "mine" });
  const parameters = { count: 4, factor: 1, shift: [0, 0] };
  const refused = (parameters: Record<string, number | number[]>, views: (typeof y)[], message: string) => {
    assert.throws(() => on.dispatch(own, parameters, views, [1]), { name: "UserError", message });
  };
  refused(
    { ...parameters, shift: 1 },
    [y, y],
    'kernel "mine": the parameter shift is 1 where a list of 2 f32 is needed',
  );
  refused(
    parameters,
    [y, half],
    'kernel "mine" has no f16 form of binding 2: it would declare "alias T2 = f32;" and have T2 there',
  );
  release(y, half);
});

test("a text that does not compile is named at the next wait, with its line as it was written", async () => {
  const on = await device(), y = dirty(on, [4], "f32");
  const compile = async (wgsl: string) => {
    on.dispatch(kernel({ wgsl, entry: "line", name: "mine" }), { count: 4, factor: 1, shift: [0, 0] }, [y, y], [1]);
    await assert.rejects(on.idle(), (error: Error) => {
      assert.match(
        error.message,
        /^Rank 0 \([^\n]*\): Validation error: kernel "mine":19: unresolved value 'q': if \(id/,
      );
      assert.equal(error.message.split("\n").length, 1);
      return true;
    });
    await on.settle();
  };
  // Behind an include of many lines, with parameters of another line count, and in f16, which adds a directive.
  await compile(text.replace("id.x < p.count", "id.x < q.count"));
  if (on.gpu.info.f16) {
    const half = dirty(on, [4], "f16");
    assert.match(source(kernel({ wgsl: text, entry: "line" }), 2), /^enable f16; \nstruct/);
    const wgsl = text.replace("id.x < p.count", "id.x + 0u < q.count");
    on.dispatch(kernel({ wgsl, entry: "line" }), { count: 4, factor: 1, shift: [0, 0] }, [half, y], [1]);
    await assert.rejects(on.idle(), /kernel "line":19: unresolved value 'q'/);
    await on.settle();
    release(half);
  }
  release(y);
});

test("a kernel that is given other buffers than it uses is named, with the bindings that it uses", async () => {
  const on = await device(), y = dirty(on, [4]), x = dirty(on, [4]), z = dirty(on, [4]);
  const unused = text.replace("p.factor * f32(x[id.x])", "p.factor"); // x is declared, and not used
  const parameters = { count: 4, factor: 1, shift: [0, 0] };
  for (
    const [wgsl, views, used] of [[text, [y], "0, 1, 2"], [text, [y, x, z], "0, 1, 2"], [
      unused,
      [y, x],
      "0, 1",
    ]] as const
  ) {
    on.dispatch(kernel({ wgsl, entry: "line" }), parameters, views, [1]);
    await assert.rejects(on.idle(), (error: Error) => {
      assert.match(
        error.message,
        new RegExp(`: kernel "line" uses the bindings ${used}, and is given others: [^\\n]*$`),
      );
      return true;
    });
    await on.settle();
  }
  release(y, x, z);
});
