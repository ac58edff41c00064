/** Labelled texts: which columns they are, what their labels are by sight, and the examples made of them. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { UserError } from "../errors.js";
import type { TokenizerFiles } from "../files/tokenizer-files.js";
import { parsePositions } from "../reft/positions.js";
import { Tokenizer } from "../tokens/tokenizer.js";
import { toRows } from "./reft-dataset.js";
import { labelledTexts, labelTask, makeClassificationDataset, textFieldsOf } from "./texts.js";

const golden = new URL("../../test/goldens/tokens/byte-level.json", import.meta.url);
const { files } = JSON.parse(readFileSync(golden, "utf8")) as { files: TokenizerFiles };
const tokenizer = Tokenizer.fromFiles({ ...files, name: "byte-level" });
const positions = parsePositions("f1+l1");
const labelled = (...labels: readonly unknown[]) => toRows(labels.map((label) => ({ text: "x", label })));

describe("what labels are, by sight", () => {
  const single = "single_label_classification";
  it.each([
    ["names, in alphabetical order", ["b", "a", "b"], { problemType: single, numLabels: 2, labels: ["a", "b"] }],
    ["whole numbers from 0", [0, 3, 1], { problemType: single, numLabels: 4 }],
    ["digits of a CSV file", ["0", "2"], { problemType: single, numLabels: 3 }],
    ["true and false", [true, false], { problemType: single, numLabels: 2 }],
    ["one class alone, still two", [0, 0], { problemType: single, numLabels: 2 }],
    ["broken numbers", [1, 0.5], { problemType: "regression", numLabels: 1 }],
    ["broken digits", ["-1.5", "2"], { problemType: "regression", numLabels: 1 }],
    [
      "lists of names",
      [["b"], [], ["a", "b"]],
      { problemType: "multi_label_classification", numLabels: 2, labels: ["a", "b"] },
    ],
    ["lists of numbers", [[4], []], { problemType: "multi_label_classification", numLabels: 5 }],
  ])("%s", (_, labels, task) => expect(labelTask(labelled(...labels), "label", "d")).toEqual(task));

  it("what is said comes first", () => {
    const rows = labelled(1, 2);
    expect(labelTask(rows, "label", "d", { problemType: "regression" })).toEqual({
      problemType: "regression",
      numLabels: 1,
    });
    expect(labelTask(rows, "label", "d", { numLabels: 7 })).toMatchObject({ numLabels: 7 });
    expect(labelTask(rows, "label", "d", { labels: ["x", "y", "z"] })).toEqual({
      problemType: single,
      numLabels: 3,
      labels: ["x", "y", "z"],
    });
  });

  it("refuses a number of two labels, and a column of texts", () => {
    expect(() => labelTask(labelled(1), "label", "d", { problemType: "regression", numLabels: 2 })).toThrow(
      /one number, not 2/,
    );
    const many = labelled(...Array.from({ length: 10_001 }, (_, i) => `text ${i}`));
    expect(() => labelTask(many, "label", "d.csv")).toThrow(/d\.csv: the field "label" has 10001 classes/);
  });
});

describe("columns", () => {
  it.each([
    [{ text: "a", sentence: "b" }, ["text"]],
    [{ sentence: "a" }, ["sentence"]],
    [{ question: "a", sentence: "b" }, ["question", "sentence"]],
    [{ premise: "a", hypothesis: "b", idx: 1 }, ["premise", "hypothesis"]],
    [{ text: 3 }, undefined],
    [{ review: "a" }, undefined],
  ])("%j", (value, fields) => expect(textFieldsOf({ value })).toEqual(fields));
});

describe("examples", () => {
  const make = (values: readonly object[], options: object = {}) =>
    makeClassificationDataset(toRows(values as Record<string, unknown>[]), "d.csv", tokenizer, {
      positions,
      labels: ["bad", "good"],
      ...options,
    });

  it("have ids, places and a class, by name or number", () => {
    const { examples, lines } = make([
      { text: "The cat sat", label: "good" },
      { text: "The cat ran", label: 0 },
      { text: "The cat ran", label: true },
    ]);
    const ids = tokenizer.encode("The cat sat");
    expect(examples[0]).toEqual({ inputIds: ids, locations: [[0], [ids.length - 1]], label: 1 });
    expect(examples.map(({ label }) => label)).toEqual([1, 0, 1]);
    expect(lines).toEqual([1, 2, 3]);
  });

  it("read the columns named, and leave out what is too long", () => {
    const rows = [
      { review: "a", stars: "bad" },
      { review: "a b c d e f g h", stars: "bad" },
    ];
    const found = make(rows, { textFields: ["review"], labelField: "stars", maxLength: 3 });
    expect(found.lines).toEqual([1]);
    expect(found.overlong).toMatchObject([{ line: 2, maxLength: 3 }]);
  });

  it.each([
    [{ text: "a" }, {}, /^d\.csv:1: the field "label" is missing\. .*columns here are "text"/],
    [{ text: "a", label: "fine" }, {}, /^d\.csv:1: .*"fine", no class\. Classes are "bad", "good"/],
    [{ review: "a", label: 1 }, {}, /^d\.csv:1: the field "text" is missing\..*Columns here are "review", "label"/],
    [{ text: "", label: 1 }, {}, /^d\.csv:1: The text has no tokens/],
    [{ text: "a", label: 1 }, { textFields: ["text", "other"] }, /the field "other" is missing/],
  ])("a row %j with %j is refused", (value, options, message) => {
    expect(() => make([value], options)).toThrow(UserError);
    expect(() => make([value], options)).toThrow(message);
  });

  it("without labels, where texts are only to be told", () => {
    const { examples } = labelledTexts(toRows([{ text: "a" }]), "d", tokenizer, {
      positions,
      textFields: ["text"],
      hint: "Rows.",
    });
    expect(examples[0]).not.toHaveProperty("label");
  });
});
