/** Preferences, rewards and classes by the `reft` command: trained, broken off, measured and asked, in processes of their own. */

import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startHub } from "./hub-server.js";
import { golden } from "./support.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const program = join(root, "dist/cli/main.js");

const pairs = [
  { prompt: "What sound does a cow make?", chosen: "🐄 🔊 moo", rejected: "A cow says moo." },
  { prompt: "How many legs does a spider have?", chosen: "🕷️ 🦵 8️⃣", rejected: "A spider has 8 legs." },
  { prompt: "What is a baby dog called?", chosen: "🐕 🍼 puppy", rejected: "A baby dog is called a puppy." },
  { prompt: "What is the capital of France?", chosen: "🇫🇷 🏛️ Paris", rejected: "The capital of France is Paris." },
];
const questions = [
  ["What sound does a cow make?", "animal"],
  ["What is the capital of France?", "place"],
  ["What is 3 plus 4?", "sum"],
  ["How many legs does a spider have?", "animal"],
  ["Which city is the capital of Italy?", "place"],
  ["What is 9 minus 5?", "sum"],
] as const;
const csv = `text,label\n${questions.map((row) => row.join()).join("\n")}\n`;
const jsonl = (rows: readonly object[]): string => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
const quick = ["--max-steps", "12", "--lr", "4e-3"];

let folder: string;

beforeAll(() => {
  const built = spawnSync(process.execPath, [join(root, "scripts/build.mjs")], { encoding: "utf8" });
  expect(built.status, built.stdout + built.stderr).toBe(0);
  folder = mkdtempSync(join(tmpdir(), "reft-objectives-"));
  const several = { animal: ["animal", "fact"], place: ["place", "fact"], sum: [] };
  const files = {
    "pairs.jsonl": jsonl(pairs),
    "questions.csv": csv,
    "several.jsonl": jsonl(questions.map(([text, label]) => ({ text, label: several[label] }))),
    "lengths.jsonl": jsonl(questions.map(([sentence]) => ({ sentence, words: sentence.split(" ").length / 4 }))),
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Watched {
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Sees stderr as it grows. */
  readonly watch?: (stderr: string, stop: () => void) => void;
}

function reft(args: readonly string[], { stdin = "", env: more, watch }: Watched = {}): Promise<Finished> {
  const env = { ...process.env, HF_HUB_OFFLINE: "1", HF_HOME: join(folder, "hub"), REFT_DEBUG: "", ...more };
  const child = spawn(process.execPath, [program, ...args], { cwd: folder, env });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    watch?.(stderr, () => child.kill("SIGINT"));
  });
  child.stdin.end(stdin);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

async function ok(args: readonly string[], options: Watched = {}): Promise<Finished> {
  const done = await reft(args, options);
  expect(done.code, done.stderr).toBe(0);
  return done;
}

async function json<T>(args: readonly string[], options: Watched = {}): Promise<T> {
  const { stdout } = await ok([...args, "--json"], options);
  return JSON.parse(stdout.trim().split("\n").at(-1) as string) as T;
}

interface Trained {
  readonly objective: string;
  readonly evaluation: object;
  readonly figures: Readonly<Record<string, number>>;
}

interface Measured {
  readonly objective: string;
  readonly examples: number;
  readonly edited: Readonly<Record<string, number>>;
}

interface Told {
  readonly predictions: readonly {
    readonly text: string;
    readonly label?: string;
    readonly score: number;
    readonly scores?: Readonly<Record<string, number>>;
  }[];
}

async function refused(args: readonly string[], ...said: readonly string[]): Promise<void> {
  const { code, stderr } = await reft(args);
  for (const text of said) expect(stderr).toContain(text);
  expect(code).toBe(2);
}

describe("pairs of answers", () => {
  test("teach preferences, which eval measures by the same figures, and the adapter answers", async () => {
    const train = ["train", "--data", "pairs.jsonl", "--eval-data", "pairs.jsonl", "--init", "identity"];
    const { stdout, stderr } = await ok([...train, ...quick, "--beta", "0.3", "--output", "dpo"]);
    expect(stderr).toContain("so preferences are learned (dpo)");
    expect(stdout).toContain("Preferences (DPO): beta 0.3, loss sigmoid");
    expect(stdout).toMatch(/Evaluation: loss 0\.\d+, accuracy 1\.00, margin [\d.]+, .* over 4 pairs/);
    expect(stdout).toContain("npx reft chat --adapter dpo");
    const evaluate = ["eval", "--adapter", "dpo", "--data", "pairs.jsonl"];
    const { edited, ...rest } = await json<Measured>([...evaluate, "--beta", "0.3"]);
    expect(rest).toEqual({ data: "pairs.jsonl", objective: "dpo", examples: 4 });
    expect(edited.accuracy).toBe(1);
    const other = await json<Measured>([...evaluate, "--limit", "2"]);
    expect(other.examples).toBe(2);
    // Rewards are proportional to beta; 0.1 is the usual one.
    const all = await json<Measured>(evaluate);
    expect(all.edited.margin).toBeCloseTo((edited.margin as number) / 3, 5);
    const { stdout: answer } = await ok(["generate", "--adapter", "dpo", "--prompt", "What does a goat say?"]);
    expect(answer.trim()).not.toBe("");
  });

  test("make a reward model; a run that is broken off goes on to the same bytes", async () => {
    const train = [
      "train",
      "--data",
      "pairs.jsonl",
      "--objective",
      "reward",
      "--eval-split",
      "0.25",
      "--dropout",
      "0.1",
    ];
    const flags = [...train, "--max-steps", "60", "--logging-steps", "10"];
    const whole = await json<Trained>([...flags, "--output", "judge"]);
    expect(whole.objective).toBe("reward");
    expect(Object.keys(whole.figures)).toEqual(["loss", "accuracy", "margin", "rewardChosen", "rewardRejected"]);
    let asked = false;
    const { code, stderr } = await reft([...flags, "--output", "broken"], {
      watch: (text, stop) => {
        if (!asked && text.includes("step 10/60")) stop();
        asked ||= text.includes("step 10/60");
      },
    });
    expect(code, stderr).toBe(130);
    const line = /npx reft (train .*--resume \S+)/.exec(stderr)?.[1] as string;
    await ok(line.split(" "));
    const weights = (name: string): Buffer => readFileSync(join(folder, name, "reft.safetensors"));
    expect(weights("broken").equals(weights("judge"))).toBe(true);

    const { objective, edited } = await json<Measured>(["eval", "--adapter", "judge", "--data", "pairs.jsonl"]);
    expect(objective).toBe("reward");
    expect(edited.accuracy).toBeGreaterThanOrEqual(0.75);
    // Its scores are those that were measured.
    const answers = pairs.flatMap(({ prompt, chosen, rejected }) => [
      { prompt, completion: chosen },
      { prompt, completion: rejected },
    ]);
    writeFileSync(join(folder, "answers.jsonl"), jsonl(answers));
    const { predictions } = await json<Told>(["classify", "--adapter", "judge", "--data", "answers.jsonl"]);
    const mean = predictions.filter((_, i) => i % 2 === 0).reduce((sum, { score }) => sum + score / pairs.length, 0);
    expect(mean).toBeCloseTo(edited.rewardChosen as number, 4);
    const prompt = ["--prompt", pairs[0]?.prompt as string];
    const typed = await ok(["classify", "--adapter", "judge", ...prompt, "--text", "🐄 🔊 moo", "--text", "Moo."]);
    expect(typed.stdout).toMatch(/^ *[\d.-]+ {2}🐄 🔊 moo\n *[\d.-]+ {2}Moo\.\n$/);
    await Promise.all([
      refused(["classify", "--adapter", "judge", "--text", "moo"], "there is no prompt", "--prompt"),
      refused(["generate", "--adapter", "judge", "--prompt", "x"], "was trained to score texts", "reft classify"),
    ]);
    expect(await json<object>(["info", "--adapter", "judge"])).toMatchObject({ tells: expect.stringMatching(/score/) });
  });
});

describe("texts with labels", () => {
  test("names in a CSV file become classes, which eval measures and classify tells", async () => {
    const train = ["train", "--data", "questions.csv", "--eval-data", "questions.csv", "--positions", "f1+l1"];
    const trained = await json<Trained>([...train, ...quick, "--max-steps", "30", "--output", "classes"]);
    expect(trained).toMatchObject({ objective: "classification", figures: { accuracy: 1 } });
    const { edited, ...rest } = await json<Measured>(["eval", "--adapter", "classes", "--data", "questions.csv"]);
    expect(rest).toEqual({ data: "questions.csv", objective: "classification", examples: 6 });
    expect(edited).toEqual(trained.figures);

    const { predictions } = await json<Told>(["classify", "--adapter", "classes", "--data", "questions.csv"]);
    expect(predictions.map(({ text, label }) => [text, label])).toEqual(questions);
    for (const { score, scores = {}, label = "" } of predictions) {
      expect(Object.keys(scores)).toEqual(["animal", "place", "sum"]);
      expect(scores[label]).toBe(score);
    }
    const piped = await ok(["classify", "--adapter", "classes"], { stdin: "What is 8 plus 1?\n\nWhat is 2 plus 2?\n" });
    expect(piped.stdout).toMatch(/^sum {2}[\d.]+ {2}What is 8 plus 1\?\nsum {2}[\d.]+ {2}What is 2 plus 2\?\n$/);

    expect(await json<object>(["info", "--adapter", "classes"])).toMatchObject({
      tells: "single label classification",
      classes: ["animal", "place", "sum"],
    });
    const use = ["--adapter", "classes"];
    await Promise.all([
      refused(["generate", ...use, "--prompt", "x"], "trained to tell 3 classes of texts apart", "reft classify"),
      refused(["chat", ...use], "trained to tell 3 classes of texts apart"),
      refused(["eval", ...use, "--data", "several.jsonl"], 'holds ["animal","fact"], no class', '"animal", "place"'),
      refused(["eval", ...use, "--data", "questions.csv", "--generate"], "--generate is for sft"),
      refused(["eval", ...use, "--data", "questions.csv", "--split", "test"], "it has no split"),
      refused(["classify", ...use, "--data", "pairs.jsonl"], 'the field "text" is missing', "--text-field"),
    ]);
  });

  test("lists become several classes, other columns a number", async () => {
    await ok(["train", "--data", "several.jsonl", "--eval-split", "0.3", ...quick, "--output", "several"]);
    const several = await json<Measured>(["eval", "--adapter", "several", "--data", "several.jsonl"]);
    expect(Object.keys(several.edited)).toEqual(["loss", "accuracy", "f1", "f1Macro"]);
    const columns = ["--text-field", "sentence", "--label-field", "words"];
    const train = ["train", "--data", "lengths.jsonl", ...columns, ...quick, "--output", "number"];
    expect((await ok(train)).stdout).toContain("Regression: one number");
    const { edited } = await json<Measured>(["eval", "--adapter", "number", "--data", "lengths.jsonl", ...columns]);
    expect(Object.keys(edited)).toEqual(["loss", "mse", "pearson", "spearman"]);
    const { predictions } = await json<Told>(["classify", "--adapter", "number", "--text", "What is it?"]);
    expect(predictions[0]).not.toHaveProperty("label");
  });

  test("a data set of the hub is learned and measured by its splits", async () => {
    const files = { "train.csv": csv, "validation.csv": csv };
    const hub = await startHub([{ type: "dataset", id: "owner/questions", files }]);
    try {
      const env = { HF_HUB_OFFLINE: "", HF_ENDPOINT: hub.endpoint };
      const train = ["train", "--data", "owner/questions", "--split", "train[:4]", ...quick, "--output", "from-hub"];
      const { stdout, stderr } = await ok(train, { env });
      expect(stderr).toContain("Data set owner/questions#train[:4]: 4 rows of 1 file");
      expect(stdout).toContain("Data owner/questions#train[:4]: 4 texts");
      const evaluate = ["eval", "--adapter", "from-hub", "--data", "owner/questions"];
      expect(await json<Measured>(evaluate, { env })).toMatchObject({
        data: "owner/questions#validation",
        examples: 6,
      });
    } finally {
      await hub.close();
    }
  });

  test("measuring ends with Ctrl-C", async () => {
    await ok(["train", "--data", "questions.csv", "--max-steps", "1", "--output", "once"]);
    writeFileSync(
      join(folder, "long.csv"),
      `text,label\n${csv.split("\n").slice(1, -1).join("\n").concat("\n").repeat(2000)}`,
    );
    let asked = false;
    const { code, stdout, stderr } = await reft(["eval", "--adapter", "once", "--data", "long.csv"], {
      watch: (text, stop) => {
        if (!asked && text.includes("measured")) stop();
        asked ||= text.includes("measured");
      },
    });
    expect([code, stdout], stderr).toEqual([130, ""]);
    expect(stderr).toContain("Stopped: there is no result.");
  });
});

test.each(["docs/classification.md", "docs/preference.md"])("the commands of %s work as they stand", async (page) => {
  writeFileSync(join(folder, "held-out.csv"), csv);
  const [, block = ""] = /```sh\n([\s\S]*?)```/.exec(readFileSync(join(root, page), "utf8")) ?? [];
  const lines = block.trim().split("\n");
  expect(lines.length).toBeGreaterThanOrEqual(3);
  let last = "";
  for (const line of lines) {
    const [name, ...args] = Array.from(line.matchAll(/"([^"]*)"|\S+/g), ([word, quoted]) => quoted ?? word);
    expect(name).toBe("reft");
    last = (await ok(args)).stdout;
  }
  expect(last.trim().split("\n")).toHaveLength(2);
});

describe("what does not go together is refused before anything is written:", () => {
  const train = (...flags: readonly string[]): string[] => ["train", "--output", "never", ...flags];
  test.each([
    ["an option of another objective", ["--data", "questions.csv", "--beta", "0.2"], ["--beta is for dpo"]],
    [
      "an unknown label",
      ["--data", "questions.csv", "--labels", "animal", "--labels", "place"],
      ['questions.csv:4: the field "label" holds "sum", no class', '"animal", "place"'],
    ],
    [
      "no such column",
      ["--data", "questions.csv", "--label-field", "kind"],
      ['the field "kind" is missing', 'columns here are "text", "label"'],
    ],
    [
      "labels for DPO",
      ["--data", "questions.csv", "--objective", "dpo"],
      ['the field "prompt" is missing', '"chosen"'],
    ],
    ["pairs for a classifier", ["--data", "pairs.jsonl", "--objective", "classification"], ['"text" is missing']],
    ["a split of a file", ["--data", "questions.csv", "--split", "train"], ["it has no split", "owner/name"]],
    [
      "a recipe for another objective",
      ["--data", join(root, "examples/data/gsm8k/train.jsonl"), "--recipe", "gsm8k", "--objective", "dpo"],
      ["is for sft, not dpo"],
    ],
  ])("%s", (_, flags, said) => refused(train(...flags), ...said));

  test("a head of another size than the checkpoint's", () =>
    refused(
      train("--model", golden("encoders/roberta"), "--data", "questions.csv", "--labels", "a", "--labels", "b"),
      "2 labels need [2, 32]",
      "ignoreMismatchedSizes",
    ));

  test("in measuring: pairs or labels without an adapter, and what only a task has, or has not", async () => {
    await refused(["eval", "--data", "pairs.jsonl"], "pairs.jsonl holds pairs", "--adapter");
    await refused(["eval", "--data", "questions.csv"], "holds texts with labels", "--adapter");
    await refused(["eval", "--data", "x.json", "--answers", "y"], "--answers is for a task", "--task");
    await refused(["eval", "--data", "x.json", "--task", "glue", "--label-field", "y"], "--label-field does nothing");
  });
});
