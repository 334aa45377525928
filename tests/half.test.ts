/** 16-bit floats on the host. */
import { deepEqual, equal } from "node:assert/strict";
import { test } from "node:test";
import { fromHalf, toHalf } from "../lib/half.ts";

test("every 16-bit float but NaN survives the way to 32 bits and back", () => {
  const bits = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).filter((each) => (each & 0x7fff) <= 0x7c00);
  deepEqual(toHalf(fromHalf(bits)), bits);
  equal(toHalf(Float32Array.of(NaN))[0] & 0x7c00, 0x7c00);
});

test("toHalf() rounds to the nearest, ties to even, and overflows to infinity", () => {
  const cases: [number, number][] = [
    [1 + 1 / 2048, 1],
    [1 + 3 / 2048, 1 + 2 / 1024],
    [1 + 1.01 / 2048, 1 + 1 / 1024],
    [2 ** -25, 0],
    [1.5 * 2 ** -25, 2 ** -24],
    [65_519, 65_504],
    [65_520, Infinity],
    [-1e9, -Infinity],
    [2047.9999, 2048],
  ];
  for (const [number, expected] of cases) equal(fromHalf(toHalf(Float32Array.of(number)))[0], expected, `${number}`);
});
