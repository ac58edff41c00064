/** Codes and scales: what comes back is within half a step, for values of every kind. */

import { expect, test } from "vitest";
import { blockSizeFor, quantise, transposed } from "./quantise.js";

/** The values that codes stand for, by the definition. */
function decode({ codes, scales }: ReturnType<typeof quantise>, bits: 4 | 8, blockSize: number): number[] {
  const count = (codes.length * 8) / bits;
  return Array.from({ length: count }, (_, i) => {
    const byte = codes[(i * bits) >> 3] as number;
    const code = bits === 8 ? byte : i % 2 === 0 ? byte & 15 : byte >> 4;
    return (code - 2 ** (bits - 1)) * (scales[Math.floor(i / blockSize)] as number);
  });
}

function wave(n: number, size = 1): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => size * Math.sin(i * i * 0.37) * (1 + (i % 7)));
}

test.each([
  [8, 16],
  [8, 128],
  [4, 16],
  [4, 32],
] as const)("%i bits in blocks of %i: no value is off by more than the code allows", (bits, blockSize) => {
  for (const size of [1, 1e-3, 1e6, 1e-30]) {
    const values = wave(512, size);
    const back = decode(quantise(values, { bits, blockSize }), bits, blockSize);
    for (let b = 0; b < values.length; b += blockSize) {
      const most = Math.max(...values.subarray(b, b + blockSize).map(Math.abs));
      // Of 4 bits the side away from the furthest value ends one step early.
      const allowed = (bits === 8 ? most / 127 / 2 : most / 8) * (1 + 1e-5);
      for (let i = b; i < b + blockSize; i++)
        expect(Math.abs((back[i] as number) - (values[i] as number)), `value ${i}`).toBeLessThanOrEqual(allowed);
    }
  }
});

test("4 bits keep the value furthest from zero, whatever its sign, and hit half a step where nothing is cut", () => {
  for (const sign of [1, -1]) {
    const values = Float32Array.from({ length: 16 }, (_, i) => sign * (i === 3 ? 8 : i / 4));
    const back = decode(quantise(values, { bits: 4, blockSize: 16 }), 4, 16);
    expect(back[3]).toBe(sign * 8);
    back.forEach((v, i) => {
      expect(Math.abs(v - (values[i] as number))).toBeLessThanOrEqual(0.5);
    });
  }
});

test("zeros, and numbers too small for a scale, come back as zeros", () => {
  for (const bits of [4, 8] as const) {
    const values = new Float32Array(32);
    values[20] = 1e-44;
    expect(decode(quantise(values, { bits, blockSize: 16 }), bits, 16).every((v) => Math.abs(v) <= 1e-43)).toBe(true);
  }
});

test("a block size is the largest that divides the row, down to 16", () => {
  expect(blockSizeFor(576, 128)).toBe(64);
  expect(blockSizeFor(4096, 128)).toBe(128);
  expect(blockSizeFor(48, 256)).toBe(16);
  expect(blockSizeFor(40, 32)).toBeUndefined();
});

test("a matrix is turned", () => {
  expect([...transposed(Float32Array.of(1, 2, 3, 4, 5, 6), 2, 3)]).toEqual([1, 4, 2, 5, 3, 6]);
});
