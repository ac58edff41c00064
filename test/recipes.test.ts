/** Recipes: prompts, answers to learn and marks equal to what pyreft's own scripts give; and the commands as a user runs them. */

import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formatPrompt } from "../src/data/format.js";
import { glueColumns, glueFigures, glueSettings } from "../src/data/recipes/glue.js";
import { glueExamples } from "../src/data/recipes/glue-rows.js";
import {
  extractAnswerLetter,
  extractAnswerNumber,
  extractOption,
  extractOutput,
  mark,
  pythonFloat,
} from "../src/data/recipes/marking.js";
import type { Decoding, TextTask } from "../src/data/recipes/recipe.js";
import { taskItems, taskLessons } from "../src/data/recipes/rows.js";
import { findRecipe, recipes } from "../src/data/recipes/table.js";
import { textTask, textTasks } from "../src/data/recipes/tasks.js";
import { readLessons } from "../src/data/schema.js";
import type { Row } from "../src/files/rows.js";
import { AutoTokenizer } from "../src/load.js";
import { parsePositions } from "../src/reft/positions.js";
import { Tokenizer } from "../src/tokens/tokenizer.js";

type Name = TextTask["name"];

interface Golden {
  readonly numbers: readonly (readonly [string, string])[];
  readonly letters: readonly (readonly [string, string])[];
  readonly outputs: readonly (readonly [string, string, string])[];
  readonly floats: readonly (readonly [string, boolean])[];
  readonly lessons: Readonly<Record<Name, readonly { row: Row["value"]; prompt: string; answer: string }[]>>;
  readonly marks: Readonly<
    Record<
      Name,
      {
        prompt: string;
        cases: readonly { reference: string; generated: string; output: string; right: boolean | null }[];
      }
    >
  >;
  readonly config: Readonly<
    Record<
      Name,
      {
        trigger: string;
        sets: readonly string[];
        greedy: Readonly<Record<string, number>>;
        task: Readonly<Record<string, number>>;
      }
    >
  >;
  readonly glueColumns: Readonly<Record<string, readonly (string | null)[]>>;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const golden = JSON.parse(readFileSync(join(root, "test/goldens/recipes/recipes.json"), "utf8")) as Golden;
const names = Object.keys(textTasks) as Name[];

describe("as pyreft's compute_metrics marks", () => {
  test.each(golden.numbers)("the number in %j", (text, number) =>
    expect(extractAnswerNumber(text)).toBe(number === "inf" ? Number.POSITIVE_INFINITY : Number(number)),
  );
  test.each(golden.letters)("the letter in %j", (text, letter) => expect(extractAnswerLetter(text)).toBe(letter));
  test.each(golden.outputs)("%j after %j", (text, trigger, output) =>
    expect(extractOutput(text, trigger)).toBe(output),
  );
  test.each(golden.floats)("whether %j is a number", (text, is) => expect(pythonFloat(text) !== undefined).toBe(is));

  test.each(names.flatMap((name) => golden.marks[name].cases.map((c) => [name, c.generated, c.reference, c] as const)))(
    "%s: %j for %j",
    (name, generated, reference, { output, right }) => {
      const marked = mark(textTask(name), { set: "set", prompt: golden.marks[name].prompt, generated, reference });
      expect([marked.output, marked.right ?? null]).toEqual([output, right]);
    },
  );

  test("no number is never right, not even where none is wanted", () =>
    expect(mark(textTask("gsm8k"), { set: "", prompt: "", generated: "none", reference: "none" }).right).toBe(false));
});

test.each([
  ["boolq", "It is false, not true.", "false"],
  ["piqa", "the correct answer is solution2", "solution2"],
  ["social_i_qa", "answer5", "answer5"],
  ["ARC-Easy", "answer6", ""],
  ["ARC-Challenge", "x answer10", "answer1"],
  ["openbookqa", "Answer1", ""],
  ["hellaswag", "ending4.", "ending4"],
  ["winogrande", "option1option2", "option1"],
  ["boolq", "", ""],
  ["else", "true", undefined],
  ["constructor", "true", undefined],
])("the first option of %s in %j is %j", (set, text, option) => expect(extractOption(set, text)).toBe(option));

describe("as pyreft's task_config and dataset", () => {
  test.each(names)("%s: prompts and answers to learn", async (name) => {
    const tokenizer = await AutoTokenizer.fromPretrained("builtin");
    const task = textTask(name);
    const rows = golden.lessons[name].map(({ row }, i) => ({ line: i + 1, value: row }));
    const prompts = taskItems(task, rows, "rows").map(({ question }) =>
      formatPrompt(question, task.template, tokenizer),
    );
    expect(prompts.map(({ text }) => text)).toEqual(golden.lessons[name].map(({ prompt }) => prompt));
    const lessons = readLessons(taskLessons(task, rows, "rows"), "rows");
    expect(lessons.map(({ question }) => formatPrompt(question, task.template, tokenizer))).toEqual(prompts);
    expect(lessons.map(({ answer }) => answer.content)).toEqual(golden.lessons[name].map(({ answer }) => answer));
  });

  test.each(names)("%s: trigger, data sets and decoding", (name) => {
    const task = textTask(name);
    const { trigger, sets, ...decoding } = golden.config[name];
    expect([task.trigger, task.sets]).toEqual([trigger, sets]);
    for (const way of ["greedy", "task"] as const)
      expect(decodingOf(task.decoding[way], name)).toEqual({ ...decoding[way] });
  });

  test("GLUE's columns; WNLI is not among the paper's eight", () => {
    const { wnli: _, ...eight } = golden.glueColumns;
    const columns = Object.entries(glueColumns).map(([set, { texts }]) => [set, [texts[0], texts[1] ?? null]]);
    expect(Object.fromEntries(columns)).toEqual(eight);
  });
});

interface PairGolden {
  readonly tokenizerJson: object;
  readonly cases: readonly (readonly [string, string, number[], number[]])[];
}

describe("GLUE", () => {
  const pairs = JSON.parse(readFileSync(join(root, "test/goldens/recipes/pairs.json"), "utf8")) as Record<
    "bert" | "bertProcessing" | "roberta",
    PairGolden
  >;
  const tokenizerOf = ({ tokenizerJson }: PairGolden): Tokenizer => Tokenizer.fromFiles({ tokenizerJson });

  test.each(Object.entries(pairs))("pairs as %s joins them", (_, of) => {
    const tokenizer = tokenizerOf(of);
    for (const [first, second, ids, tokenTypeIds] of of.cases)
      expect(tokenizer.encodePair(first, second)).toEqual({ ids, tokenTypeIds });
  });

  const rows: Row[] = [
    { line: 1, value: { sentence1: "Ann has a bicycle .", sentence2: "It rained .", label: 1 } },
    { line: 2, value: { sentence1: "It", sentence2: "It rained all day .", label: "entailment" } },
  ];
  const options = { positions: parsePositions("f3") };

  test("rows become pairs with a class; segments for BERT alone", () => {
    const [first, second] = glueExamples("rte", rows, "rte", tokenizerOf(pairs.bert), {
      ...options,
      tokenTypes: true,
    }).examples;
    expect(first).toMatchObject({
      label: 1,
      inputIds: pairs.bert.cases[0]?.[2],
      tokenTypeIds: pairs.bert.cases[0]?.[3],
    });
    expect(first?.locations).toEqual([[0, 1, 2]]);
    expect(second?.label).toBe(0);
    expect(glueExamples("rte", rows, "rte", tokenizerOf(pairs.roberta), options).examples[0]).not.toHaveProperty(
      "tokenTypeIds",
    );
  });

  test.each([
    [{ sentence1: "It", sentence2: "It" }, 'rte:5: the field "label" is missing'],
    [{ sentence1: "It", sentence2: "It", label: -1 }, "test split to itself"],
    [{ sentence1: "It", sentence2: "It", label: 2 }, "holds 2, no class"],
    [{ sentence1: "It", label: 1 }, 'the field "sentence2" is missing'],
  ])("a row %j is refused", (value, message) =>
    expect(() => glueExamples("rte", [{ line: 5, value }], "rte", tokenizerOf(pairs.bert), options)).toThrow(message),
  );

  test("figures are GLUE's", () => {
    expect(glueFigures("cola", { accuracy: 1, matthews: 0.5, f1: 1 })).toEqual({ matthews: 0.5 });
    expect(glueFigures("mrpc", { accuracy: 0.5, f1: 0.7 })).toEqual({ accuracy: 0.5, f1: 0.7, combined: 0.6 });
    expect(glueFigures("stsb", { pearson: 1, spearman: 0.5 })).toEqual({ pearson: 1, spearman: 0.5, combined: 0.75 });
  });
});

/** Under transformers' names. */
function decodingOf(decoding: Decoding, name: Name): Record<string, unknown> {
  const { maxNewTokens, temperature, topK, topP, numBeams, repetitionPenalty, noRepeatNgramSize } = decoding;
  const all = {
    [name === "instruct" ? "max_length" : "max_new_tokens"]: maxNewTokens,
    do_sample: temperature > 0,
    temperature: temperature > 0 ? temperature : undefined,
    top_k: topK,
    top_p: topP,
    num_beams: numBeams,
    repetition_penalty: repetitionPenalty,
    no_repeat_ngram_size: noRepeatNgramSize,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

describe("recipes", () => {
  test("have the paper's effective batch, and unique names", () => {
    const batch = (name: string): number => {
      const { perDeviceTrainBatchSize, gradientAccumulationSteps } = findRecipe(name).settings;
      return perDeviceTrainBatchSize * gradientAccumulationSteps;
    };
    expect(["commonsense", "math", "gsm8k", "instruct", "glue-cola"].map(batch)).toEqual([32, 32, 32, 128, 32]);
    expect(new Set(recipes.map(({ name }) => name)).size).toBe(recipes.length);
    expect(Object.keys(glueSettings.base)).toEqual(Object.keys(glueColumns));
  });

  test("go by other names too, and say which there are", () => {
    expect(findRecipe("arithmetic").name).toBe("math");
    expect(findRecipe("ultrafeedback").name).toBe("instruct");
    expect(() => findRecipe("toString")).toThrow(/no recipe "toString".*commonsense, math, gsm8k, instruct/s);
  });
});

test.each([
  ["commonsense", { instruction: "a" }, 'rows:3: the field "answer" is missing'],
  ["math", { instruction: "a", answer: null, output: "b" }, 'rows:3: the field "answer" is missing'],
  ["math", { answer: "1", output: "b" }, 'rows:3: the field "instruction" is missing'],
  ["gsm8k", { question: ["a"], answer: "1" }, 'rows:3: the field "question" is a list, not text'],
] as const)("%s: a row %j is refused", (name, value, message) =>
  expect(() => taskItems(textTask(name), [{ line: 3, value }], "rows")).toThrow(message),
);

test("an answer may be a number, as in some of LLM-Adapters' files", () => {
  const [item] = taskItems(textTask("math"), [{ line: 1, value: { instruction: "a", answer: 4.5 } }], "rows");
  expect(item?.reference).toBe("4.5");
});

describe("the command", () => {
  const program = join(root, "dist/cli/main.js");
  const data = join(root, "examples/data");
  let folder: string;

  beforeAll(async () => {
    const built = spawnSync(process.execPath, [join(root, "scripts/build.mjs")], { encoding: "utf8" });
    expect(built.status, built.stdout + built.stderr).toBe(0);
    folder = mkdtempSync(join(tmpdir(), "reft-recipes-"));
    const rows = ["What sound does a cow make?", "What is the capital of France?"];
    writeFileSync(
      join(folder, "own.json"),
      JSON.stringify(rows.map((instruction) => ({ instruction, answer: "false" }))),
    );
    const quick = ["--max-steps", "60", "--lr", "1e-2", "--batch-size", "2", "--gradient-accumulation-steps", "1"];
    const { code, stderr } = await reft([
      ...["train", "--recipe", "commonsense", "--data", "own.json", "--output", "adapter"],
      ...quick,
    ]);
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("--layers all, --rank 8, --positions f7+l7, --share-weights,");
    expect(stderr).toContain("--learning-rate 0.01 (yours; the recipe has 0.0009)");
    expect(stderr).toContain("--template {prompt}\\n");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  interface Finished {
    readonly code: number | null;
    readonly stdout: string;
    readonly stderr: string;
  }

  function reft(args: readonly string[], watch?: (stderr: string, stop: () => void) => void): Promise<Finished> {
    const env = { ...process.env, HF_HUB_OFFLINE: "1", HF_HOME: join(folder, "hub"), REFT_DEBUG: "" };
    const child = spawn(process.execPath, [program, ...args], { cwd: folder, env });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      watch?.(stderr, () => child.kill("SIGINT"));
    });
    child.stdin.end();
    return new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (code) => resolve({ code, stdout, stderr }));
    });
  }

  const lines = (name: string): string[] => readFileSync(join(folder, name), "utf8").trim().split("\n");

  test("lists recipes, and refuses one that is not there", async () => {
    expect((await reft(["train", "--recipe", "list"])).stdout).toMatch(/^commonsense .*\n(.*\n)*glue-stsb-large .*\n$/);
    const { code, stderr } = await reft(["train", "--recipe", "poetry", "--data", "x.json"]);
    expect([code, stderr]).toEqual([2, expect.stringContaining('there is no recipe "poetry"')]);
  });

  test("trains by the recipe: all layers share an edit, and what was learned is answered rightly", async () => {
    const config = JSON.parse(readFileSync(join(folder, "adapter/reft_config.json"), "utf8")) as Record<
      string,
      unknown
    >;
    expect(config).toMatchObject({ template: "{prompt}\n" });
    const args = ["eval", "--adapter", "adapter", "--task", "commonsense", "--data", "own.json", "--json"];
    for (const decoding of ["greedy", "task"]) {
      const { code, stdout, stderr } = await reft([...args, "--decoding", decoding]);
      expect(code, stderr).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ datasets: [{ dataset: "own", examples: 2, right: 2 }], average: 1 });
    }
  });

  test("measures a folder of data sets, a line of the table each", async () => {
    const args = ["eval", "--adapter", "adapter", "--task", "commonsense", "--data", join(data, "commonsense")];
    const { code, stdout, stderr } = await reft([...args, "--limit", "2"]);
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^Data set +Examples +Accuracy +First option named\nboolq +2 +[\d.]+ % +[\d.]+ %\n/);
    expect(stdout).toMatch(/openbookqa +1 .*\nAverage +[\d.]+ %\n$/);
  });

  test("goes on from where it was stopped, to the same answers", async () => {
    const rows = Array.from({ length: 40 }, (_, i) => ({ instruction: `What is ${i} plus 2?`, answer: String(i + 2) }));
    writeFileSync(join(folder, "sums.json"), JSON.stringify(rows));
    const run = ["eval", "--adapter", "adapter", "--task", "math", "--data", "sums.json", "--batch-size", "2"];
    const args = [...run, "--max-new-tokens", "60", "--temperature", "0.7"];
    const whole = await reft([...args, "--answers", "whole.jsonl", "--json"]);
    expect(whole.code, whole.stderr).toBe(0);
    const begun = await reft([...args, "--answers", "stopped.jsonl"], (stderr, stop) => {
      if (stderr.includes("answered 8/40") && !stderr.includes("Stopping")) stop();
    });
    expect(begun.code).toBe(130);
    expect(begun.stderr).toMatch(/Stopped after \d+ of 40 answers\.\nGo on with:\n {2}npx reft eval .*stopped\.jsonl/);
    const kept = lines("stopped.jsonl").length;
    expect(kept).toBeGreaterThanOrEqual(8);
    expect(kept).toBeLessThan(40);
    // As after a power cut: the last line is half written.
    writeFileSync(
      join(folder, "stopped.jsonl"),
      `${lines("whole.jsonl").slice(0, 5).join("\n")}\n${lines("whole.jsonl")[5]?.slice(0, 30)}`,
    );
    const resumed = await reft([...args, "--answers", "stopped.jsonl", "--json"]);
    expect(resumed.stdout).toBe(whole.stdout);
    expect(new Set(lines("stopped.jsonl"))).toEqual(new Set(lines("whole.jsonl")));
    const other = await reft([...run, "--answers", "whole.jsonl"]);
    expect([other.code, other.stderr]).toEqual([2, expect.stringContaining("no answers of this model")]);
  });

  test("never writes into a file that is no log of its own", async () => {
    for (const text of ["my notes, one line", "my notes\n", '{"run": 1}\n']) {
      writeFileSync(join(folder, "notes.txt"), text);
      const args = ["eval", "--task", "gsm8k", "--data", join(data, "gsm8k/test.jsonl"), "--answers", "notes.txt"];
      expect((await reft(args)).code).toBe(2);
      expect(readFileSync(join(folder, "notes.txt"), "utf8")).toBe(text);
    }
  });

  test("gsm8k and the folder of a single data set", async () => {
    cpSync(join(data, "gsm8k"), join(folder, "gsm8k"), { recursive: true });
    const { stdout } = await reft(["eval", "--task", "gsm8k", "--data", "gsm8k", "--max-new-tokens", "8", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({
      task: "gsm8k",
      generator: "builtin",
      datasets: [{ dataset: "gsm8k", examples: 1 }],
    });
  });

  test("instructions are answered into a file for a judge", async () => {
    const args = ["eval", "--task", "instruct", "--data", join(data, "instruct"), "--max-new-tokens", "8"];
    const without = await reft(args);
    expect([without.code, without.stderr]).toEqual([2, expect.stringContaining("--answers FILE")]);
    const { code, stderr } = await reft([...args, "--answers", "judged.jsonl"]);
    expect(code, stderr).toBe(0);
    const judged = lines("judged.jsonl").map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(judged).toMatchObject([
      { instruction: "What sound does a cow make?", dataset: "alpaca_eval", generator: "builtin" },
      { instruction: "What is 2 plus 2?" },
    ]);
  });

  test("GLUE: a classifier is trained by its recipe, and measured by GLUE's figures", async () => {
    const cola = join(data, "glue/cola.jsonl");
    const train = ["train", "--recipe", "glue-cola", "--data", cola, "--eval-data", cola, "--output", "cola"];
    const trained = await reft([...train, "--max-steps", "40", "--lr", "2e-2", "--rank", "4", "--json"]);
    expect(trained.code, trained.stderr).toBe(0);
    const { figures } = JSON.parse(trained.stdout.trim().split("\n").at(-1) as string) as { figures: object };
    const { code, stdout, stderr } = await reft([
      "eval",
      "--adapter",
      "cola",
      "--task",
      "glue",
      "--data",
      cola,
      "--json",
    ]);
    expect(code, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      task: "glue",
      datasets: [{ dataset: "cola", examples: 4, ...figures }],
    });
    const wrong = await reft(["eval", "--adapter", "cola", "--task", "glue", "--data", "own.json"]);
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringContaining('"own" is no data set of GLUE')]);
  });

  test("a folder without the task's data sets is refused", async () => {
    const { code, stderr } = await reft(["eval", "--task", "math", "--data", join(data, "commonsense")]);
    expect([code, stderr]).toEqual([2, expect.stringContaining("holds none of MultiArith, gsm8k")]);
  });
});
