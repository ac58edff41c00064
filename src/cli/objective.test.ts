/** Which way of learning rows ask for, which options go with it, and what a trained head is for. */

import { expect, test } from "vitest";
import { toRows } from "../data/reft-dataset.js";
import { checkMeant, detectObjective, objectiveOfHead } from "./objective.js";

const nameFor = (row: Record<string, unknown>, options = {}): string =>
  detectObjective({ path: "d", rows: toRows([row]) }, options).name;

test.each([
  [{ prompt: "a", completion: "b" }, "sft"],
  [{ messages: [] }, "sft"],
  [{ instruction: "a", output: "b", label: 1, text: "c" }, "sft"],
  [{ question: "a", answer: "b", text: "c", label: 1 }, "sft"],
  [{ prompt: "a", chosen: "b", rejected: "c" }, "dpo"],
  [{ text: "a", label: 1 }, "classification"],
  [{ question: "a", sentence: "b", label: 0 }, "classification"],
  [{ sentence: "a" }, "sft"],
  [{ review: "a", label: 1 }, "sft"],
])("%j is for %s", (row, name) => expect(nameFor(row)).toBe(name));

test("an option that only a classifier has says it too; the reason is told where rows decide", () => {
  expect(nameFor({ review: "a", stars: 1 }, { textField: "review", labelField: "stars" })).toBe("classification");
  const { why } = detectObjective({ path: "d", rows: toRows([{ chosen: "b", rejected: "c" }]) });
  expect(why).toContain("--objective reward");
  expect(detectObjective({ path: "d", rows: toRows([{ prompt: "a", completion: "b" }]) })).not.toHaveProperty("why");
});

test.each([
  ["sft", { beta: 0.2 }, /--beta is for dpo; the objective here is sft/],
  ["reward", { lossType: "ipo" }, /--loss-type is for dpo; the objective here is reward/],
  ["dpo", { labels: ["a"] }, /--labels is for classification; the objective here is dpo/],
  ["dpo", { ignoreMismatchedSizes: true }, /--ignore-mismatched-sizes is for reward, classification/],
  ["classification", { template: "none" }, /--template is for sft, dpo, reward/],
  ["dpo", { allTurns: true }, /--all-turns is for sft/],
] as const)("%s with %j is refused", (name, options, message) =>
  expect(() => checkMeant(name, options)).toThrow(message),
);

test("what goes with an objective, or is not given, passes", () => {
  checkMeant("dpo", { beta: 0.2, lossType: "ipo", template: "none", allTurns: false, labels: undefined });
  checkMeant("classification", { labelField: "x", ignoreMismatchedSizes: true });
});

test("one label without a problem is a score", () => {
  expect(objectiveOfHead({ labels: ["LABEL_0"], problemType: null })).toBe("reward");
  expect(objectiveOfHead({ labels: ["LABEL_0"], problemType: "regression" })).toBe("classification");
  expect(objectiveOfHead({ labels: ["a", "b"], problemType: null })).toBe("classification");
});
