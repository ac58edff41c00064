/** Tests of sampling: transformers' processors on recorded logits, ties, draws, and bad numbers. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { UserError } from "../errors.js";
import { Random } from "../reft/random.js";
import {
  argmax,
  candidates,
  checkSampling,
  chooseToken,
  GREEDY,
  penaliseRepetition,
  type SamplingSettings,
  sample,
} from "./sampling.js";

interface Recorded {
  readonly logits: readonly number[];
  readonly context: readonly number[];
  readonly cases: readonly {
    readonly settings: Readonly<Record<string, number>>;
    readonly probabilities: readonly number[];
  }[];
}

const golden = JSON.parse(
  readFileSync(new URL("../../test/goldens/generate/processors.json", import.meta.url), "utf8"),
) as Recorded;

const sampling = (settings: Partial<SamplingSettings> = {}): SamplingSettings => ({
  ...GREEDY,
  doSample: true,
  ...settings,
});

const fromRecorded = (settings: Readonly<Record<string, number>>): SamplingSettings =>
  sampling({
    temperature: settings.temperature ?? 1,
    topK: settings.top_k ?? 0,
    topP: settings.top_p ?? 1,
    minP: settings.min_p ?? 0,
    repetitionPenalty: settings.repetition_penalty ?? 1,
  });

const kept = (logits: readonly number[], settings: Partial<SamplingSettings>): number[] =>
  [...candidates(Float32Array.from(logits), sampling(settings)).ids].sort((a, b) => a - b);

describe("candidates", () => {
  test.each(golden.cases.map((row) => [JSON.stringify(row.settings), row] as const))(
    "equal transformers' processors: %s",
    (_, { settings, probabilities }) => {
      const logits = Float32Array.from(golden.logits);
      const ours = fromRecorded(settings);
      const result = candidates(penaliseRepetition(logits, golden.context, ours.repetitionPenalty), ours);
      const dense = new Float64Array(logits.length);
      for (const [i, id] of result.ids.entries()) dense[id] = result.probabilities[i]!;
      for (const [id, expected] of probabilities.entries()) {
        // The same tokens are left, and they are as likely.
        expect(dense[id]! > 0).toBe(expected > 0);
        expect(Math.abs(dense[id]! - expected)).toBeLessThan(1e-6);
      }
      expect(logits).toEqual(Float32Array.from(golden.logits));
    },
  );

  test("top-k keeps all that tie with the kth", () => {
    expect(kept([1, 3, 2, 2, 0], { topK: 2 })).toEqual([1, 2, 3]);
    expect(kept([1, 3, 2, 2, 0], { topK: 3 })).toEqual([1, 2, 3]);
    expect(kept([1, 1, 1], { topK: 1 })).toEqual([0, 1, 2]);
    expect(kept([1, 3, 2], { topK: 99 })).toEqual([0, 1, 2]);
  });

  test("top-p keeps the fewest that reach p, the last of equal ones, and always one", () => {
    expect(kept([0, 0, 0, 0], { topP: 0.5 })).toEqual([2, 3]);
    expect(kept([0, 0, 0, 0], { topP: 0.51 })).toEqual([1, 2, 3]);
    expect(kept([5, 1, 0], { topP: 1e-9 })).toEqual([0]);
  });

  test("min-p keeps ties with the likeliest, and top-p counts what top-k left", () => {
    expect(kept([2, 2, 1], { minP: 1 })).toEqual([0, 1]);
    const halves = [0, 0, Math.log(0.5), Math.log(0.5)];
    // Of all four the two likeliest hold 2/3; of the two that top-k leaves, all.
    expect(kept(halves, { topP: 0.6 })).toEqual([0, 1]);
    expect(kept(halves, { topK: 2, topP: 0.5 })).toEqual([1]);
  });

  test("over a large vocabulary it agrees with sorting everything", () => {
    const random = new Random(9);
    const logits = Float32Array.from({ length: 150_000 }, () => 3 * random.normal());
    const order = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || b - a);
    const weights = order.map((id) => Math.exp(logits[id]!));
    const total = weights.reduce((a, b) => a + b, 0);
    for (const topP of [0.1, 0.9]) {
      let mass = 0;
      const expected = order.filter((_, i) => {
        const before = mass;
        mass += weights[i]!;
        return before < topP * total;
      });
      expect([...candidates(logits, sampling({ topP })).ids]).toEqual(expected);
    }
    expect([...candidates(logits, sampling({ topK: 50 })).ids]).toEqual(order.slice(0, 50));
  });

  test("a token of −∞ is never drawn; NaN and +∞ are refused", () => {
    const { ids, probabilities } = candidates(Float32Array.of(Number.NEGATIVE_INFINITY, 0, 0), sampling());
    expect([...ids].map((id, i) => [id, probabilities[i]])).toEqual([
      [0, 0],
      [1, 0.5],
      [2, 0.5],
    ]);
    expect(() => candidates(Float32Array.of(0, Number.NaN), sampling())).toThrow(UserError);
    expect(() => candidates(Float32Array.of(0, Number.POSITIVE_INFINITY), sampling())).toThrow(/an infinity/);
  });
});

describe("sample", () => {
  test("draws in proportion, and the same for the same seed", () => {
    const probabilities = [0.5, 0.3, 0.15, 0.05];
    const logits = Float32Array.from(probabilities, Math.log);
    const random = new Random(21);
    const counts = [0, 0, 0, 0];
    const draws = 20_000;
    for (let i = 0; i < draws; i++) counts[sample(logits, sampling(), random)]!++;
    // Five standard errors.
    for (const [id, p] of probabilities.entries()) {
      expect(Math.abs(counts[id]! / draws - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / draws));
    }
    const some = (): number[] => {
      const again = new Random(22);
      return Array.from({ length: 20 }, () => sample(logits, sampling({ temperature: 2 }), again));
    };
    expect(some()).toEqual(some());
  });

  test("draws only what the filters leave, at very low temperatures too", () => {
    const random = new Random(23);
    const logits = Float32Array.of(1, 5, 4.9, -3, Number.NEGATIVE_INFINITY);
    for (let i = 0; i < 200; i++) {
      expect([1, 2]).toContain(sample(logits, sampling({ topK: 2 }), random));
      expect(sample(logits, sampling({ temperature: 1e-6 }), random)).toBe(1);
      expect(sample(logits, sampling(), random)).toBeLessThan(4);
    }
  });
});

describe("chooseToken", () => {
  test("greedy takes the first of the largest after the penalty, and draws nothing", () => {
    const random = new Random(1);
    const before = random.state;
    const logits = Float32Array.of(1, 3, 3, -1);
    expect(chooseToken(logits, [], GREEDY, random)).toBe(1);
    expect(chooseToken(logits, [1], { ...GREEDY, repetitionPenalty: 1.5 }, random)).toBe(2);
    expect(random.state).toEqual(before);
    expect(logits).toEqual(Float32Array.of(1, 3, 3, -1));
  });

  test("sampling sees the penalty", () => {
    const settings = sampling({ topK: 1, repetitionPenalty: 2 });
    expect(chooseToken(Float32Array.of(4, 3), [0, 0, 0], settings, new Random(1))).toBe(1);
  });

  test("the penalty counts a token once, and pushes negative logits down", () => {
    const penalised = penaliseRepetition(Float32Array.of(4, -4, 2), [0, 0, 1], 2);
    expect(penalised).toEqual(Float32Array.of(2, -8, 2));
  });
});

describe("argmax", () => {
  test("is the first of equal ones, and works where all are negative", () => {
    expect(argmax(Float32Array.of(-5, -2, -2))).toBe(1);
    expect(argmax(Float32Array.of(Number.NEGATIVE_INFINITY, -9))).toBe(1);
  });

  test("is what a plain search finds, at every length and place", () => {
    const random = new Random(7);
    for (let length = 1; length < 40; length++)
      for (let top = 0; top < length; top++) {
        const logits = Float32Array.from({ length }, () => Math.round(8 * random.uniform()) - 9);
        if (top % 2 === 0) logits[top] = 1;
        expect(argmax(logits)).toBe(logits.indexOf(Math.max(...logits)));
        logits[top] = Number.NaN;
        expect(() => argmax(logits)).toThrow(UserError);
      }
  });

  test.each([[[]], [[Number.NaN, 1]], [[1, Number.NaN]], [[Number.NEGATIVE_INFINITY]]])("refuses %j", (logits) => {
    expect(() => argmax(Float32Array.from(logits))).toThrow(UserError);
  });
});

describe("checkSampling", () => {
  test.each([
    ["temperature", [0, -1, Number.NaN, Number.POSITIVE_INFINITY]],
    ["topK", [-1, 1.5, Number.NaN]],
    ["topP", [0, 1.01, -0.5, Number.NaN]],
    ["minP", [-0.1, 1.1, Number.NaN]],
    ["repetitionPenalty", [0, -1, Number.NaN]],
  ] as const)("refuses a %s out of range", (name, values) => {
    for (const value of values) {
      expect(() => checkSampling(sampling({ [name]: value }))).toThrow(UserError);
      expect(() => checkSampling(sampling({ [name]: value }))).toThrow(`${name} ${value} is out of range`);
    }
  });

  test("takes neutral and usual settings", () => {
    checkSampling(GREEDY);
    checkSampling({ ...GREEDY, temperature: 0 });
    checkSampling(sampling({ temperature: 0.7, topK: 50, topP: 0.9, minP: 0.05, repetitionPenalty: 1.1 }));
  });
});
