/** Which examples meet in which batch. */
import { describe, expect, test } from "vitest";
import type { Example } from "../data/example.js";
import { chunks, epochBatches } from "./batches.js";

const examples: Example[] = Array.from({ length: 23 }, (_, i) => ({
  inputIds: Array.from({ length: 1 + ((i * 7) % 13) }, () => 1),
  labels: [],
  promptLength: 1,
  locations: [[0]],
}));
const options = { batchSize: 4, seed: 3, groupByLength: false, dropLast: false };

describe("epochBatches", () => {
  test("every example once an epoch, in an order by seed and epoch", () => {
    const order = epochBatches(examples, 0, options).flat();
    expect([...order].sort((a, b) => a - b)).toEqual(examples.map((_, i) => i));
    expect(epochBatches(examples, 0, options).flat()).toEqual(order);
    expect(epochBatches(examples, 1, options).flat()).not.toEqual(order);
    expect(epochBatches(examples, 0, { ...options, seed: 4 }).flat()).not.toEqual(order);
  });

  test("grouped by length: every example once, like lengths together, long and short batches mixed", () => {
    const batches = epochBatches(examples, 0, { ...options, groupByLength: true });
    expect(batches.flat().sort((a, b) => a - b)).toEqual(examples.map((_, i) => i));
    const length = (i: number): number => examples[i]?.inputIds.length as number;
    const padding = (all: number[][]): number =>
      all.flatMap((b) => b.map((i) => Math.max(...b.map(length)) - length(i))).reduce((a, b) => a + b, 0);
    expect(padding(batches)).toBeLessThan(padding(epochBatches(examples, 0, options)) / 2);
    const longest = batches.map((b) => Math.max(...b.map(length)));
    expect(longest).not.toEqual([...longest].sort((a, b) => b - a));
    expect(epochBatches(examples, 1, { ...options, groupByLength: true })).not.toEqual(batches);
  });

  test("grouped by length, under a tenth of a data set of instructions is padding", () => {
    // Lengths spread like Alpaca's: half below 100 tokens, some of 800.
    const bell = (i: number): number => [3, 7, 11, 13].reduce((sum, k) => sum + Math.sin(k * 997 * i), 0) / Math.SQRT2;
    const texts = Array.from({ length: 2000 }, (_, i) => {
      const length = Math.max(12, Math.min(800, Math.round(100 * Math.exp(0.7 * bell(i)))));
      return { inputIds: Array.from({ length }, () => 1) };
    });
    const share = (batches: number[][]): number => {
      const lengths = batches.map((b) => b.map((i) => texts[i]?.inputIds.length as number));
      const fed = lengths.reduce((sum, b) => sum + b.length * Math.max(...b), 0);
      return 1 - lengths.flat().reduce((a, b) => a + b, 0) / fed;
    };
    const eight = { ...options, batchSize: 8 };
    expect(share(epochBatches(texts, 0, { ...eight, groupByLength: true }))).toBeLessThan(0.1);
    expect(share(epochBatches(texts, 0, eight))).toBeGreaterThan(0.3);
  });

  test("dropLast leaves out the short batch, grouped or not", () => {
    for (const groupByLength of [false, true]) {
      const batches = epochBatches(examples, 0, { ...options, groupByLength, dropLast: true });
      expect(batches.map((b) => b.length)).toEqual([4, 4, 4, 4, 4]);
    }
  });
});

describe("chunks", () => {
  test("the last may be short; it stays where it is the only one", () => {
    expect(chunks([1, 2, 3], { batchSize: 2, dropLast: false })).toEqual([[1, 2], [3]]);
    expect(chunks([1, 2, 3], { batchSize: 2, dropLast: true })).toEqual([[1, 2]]);
    expect(chunks([1], { batchSize: 2, dropLast: true })).toEqual([[1]]);
    expect(chunks([], { batchSize: 2, dropLast: true })).toEqual([]);
  });
});
