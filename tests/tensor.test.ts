import assert from "node:assert/strict";
import { after, test } from "node:test";
import { empty, fromArray, release, toArray, view, writeArray } from "../lib/tensor.ts";
import { close, device } from "./ops/support.ts";

after(close);

const refused = (call: () => unknown, message: string) => assert.throws(call, { name: "UserError", message });

test("empty(), fromArray() and view() take axes that are whole numbers, 0 or more", async () => {
  const on = await device();
  const before = on.ledger.total();
  const tensor = empty(on, [4, 64], "workspace");
  for (const axis of [-1, 1.5, NaN, Infinity, 2 ** 60]) {
    const message = (caller: string) =>
      `${caller}: shape [2,${axis}] has an axis of ${axis}; axes must be whole numbers, 0 or more`;
    refused(() => empty(on, [2, axis], "workspace"), message("empty"));
    refused(() => fromArray(on, [2, axis], new Float32Array(2), "workspace"), message("fromArray"));
    refused(() => view(tensor, [2, axis]), message("view"));
  }
  release(tensor);
  assert.equal(on.ledger.total(), before);
});

test("fromArray() and writeArray() take as many elements as there are, of the tensor's kind", async () => {
  const on = await device();
  const before = on.ledger.total();
  const floats = empty(on, [2, 3], "workspace"), halves = empty(on, [2, 3], "workspace", "f16");
  const words = empty(on, [2, 3], "workspace", "u32");
  for (
    const [tensor, right, Right, Wrong] of [
      [floats, "f32 tensor must be a Float32Array", Float32Array, Uint32Array],
      [halves, "f16 tensor must be a Float32Array", Float32Array, Uint32Array],
      [words, "u32 tensor must be a Uint32Array", Uint32Array, Float32Array],
    ] as const
  ) {
    const make = (data: Float32Array | Uint32Array) => fromArray(on, [2, 3], data, "workspace", tensor.dtype);
    for (const length of [0, 5, 7]) {
      const what = `shape [2,3] has 6 elements, the data ${length}`;
      refused(() => make(new Right(length)), `fromArray: ${what}`);
      refused(() => writeArray(tensor, new Right(length)), `writeArray: ${what}`);
    }
    const wrong = (data: unknown, shown: string) => {
      refused(() => make(data as Float32Array), `fromArray: the data of a ${right}, not ${shown}`);
      refused(() => writeArray(tensor, data as Float32Array), `writeArray: the data of a ${right}, not ${shown}`);
    };
    wrong(new Wrong(6), `a ${Wrong.name}`);
    wrong(new Float64Array(6), "a Float64Array");
    wrong([1, 2, 3, 4, 5, 6], "[1, 2, 3, 4, 5, 6]");
    wrong(undefined, "undefined");
    writeArray(tensor, new Right(6));
    release(make(new Right(6)));
  }
  release(floats, halves, words);
  assert.equal(on.ledger.total(), before);
});

test("toArray() reads floats, and says how words are read", async () => {
  const on = await device();
  const words = fromArray(on, [2], Uint32Array.of(1, 2), "workspace");
  await assert.rejects(toArray(words), {
    name: "UserError",
    message: "toArray: a u32 tensor holds no floats; `new Uint32Array(await tensor.device.read(tensor))` reads it",
  });
  assert.deepEqual(new Uint32Array(await on.read(words)), Uint32Array.of(1, 2));
  release(words);
});

test("a view lies within its tensor and starts at a multiple of 256 bytes", async () => {
  const on = await device();
  const tensor = fromArray(on, [128], Float32Array.from({ length: 128 }, (_, i) => i), "workspace");
  const second = view(tensor, [64], 256);
  assert.deepEqual([...await toArray(second)], Array.from({ length: 64 }, (_, i) => 64 + i));
  for (
    const [shape, offset] of [[[128], 256], [[129], 0], [[64], 128], [[64], -256], [[1], 512], [[1], NaN]] as const
  ) {
    refused(
      () => view(tensor, shape, offset),
      `view: f32 [${shape}] at byte ${offset} must lie in the tensor's 512 bytes, and start at a multiple of 256`,
    );
  }
  // Nor does a view of a view reach behind it, where the storage goes on.
  const first = view(tensor, [64]);
  refused(
    () => view(first, [64], 256),
    "view: f32 [64] at byte 256 must lie in the tensor's 256 bytes, and start at a multiple of 256",
  );
  release(tensor, first, second);
});
