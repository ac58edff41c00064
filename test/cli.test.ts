/** The `reft` command as a user runs it: the built program in a process of its own, on the built-in model. */

import { spawn, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { defaultCommit, startHub } from "./hub-server.js";

const root = fileURLToPath(new URL("..", import.meta.url));
const program = join(root, "dist/cli/main.js");
const builtin = join(root, "models/builtin");
const emoji = join(builtin, "examples/emoji.jsonl");

let folder: string;

beforeAll(() => {
  const built = spawnSync(process.execPath, [join(root, "scripts/build.mjs")], { encoding: "utf8" });
  expect(built.status, built.stdout + built.stderr).toBe(0);
  folder = mkdtempSync(join(tmpdir(), "reft-cli-"));
  const held = readFileSync(join(builtin, "examples/held-out.jsonl"), "utf8").trim().split("\n");
  const rows = held.map((line) => JSON.parse(line) as { prompt: string; emoji: string });
  writeFile(
    "held-out.jsonl",
    rows.map(({ prompt, emoji: completion }) => JSON.stringify({ prompt, completion })),
  );
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function writeFile(name: string, lines: readonly string[]): string {
  writeFileSync(join(folder, name), `${lines.join("\n")}\n`);
  return name;
}

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `reft …` in the test's folder. `watch` sees stderr as it grows. */
function reft(
  args: readonly string[],
  options: {
    stdin?: string;
    env?: Readonly<Record<string, string>>;
    watch?: (stderr: string, kill: (signal: NodeJS.Signals) => void) => void;
  } = {},
): Promise<Finished> {
  const env = { ...process.env, HF_HUB_OFFLINE: "1", HF_HOME: join(folder, "hub"), REFT_DEBUG: "", ...options.env };
  const child = spawn(process.execPath, [program, ...args], { cwd: folder, env });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
    options.watch?.(stderr, (signal) => child.kill(signal));
  });
  child.stdin.end(options.stdin ?? "");
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}

/** Runs a command that must succeed. */
async function ok(args: readonly string[], options: Parameters<typeof reft>[1] = {}): Promise<string> {
  const { code, stdout, stderr } = await reft(args, options);
  expect(code, stderr).toBe(0);
  return stdout;
}

async function json<T>(args: readonly string[]): Promise<T> {
  return JSON.parse((await ok([...args, "--json"])).trim().split("\n").at(-1) as string) as T;
}

const bytes = (path: string): string => readFileSync(join(folder, path)).toString("base64");

describe("demo", () => {
  test("ten examples turn answers never trained on from 0 % to at least 90 % emoji, and right", async () => {
    const lines = (await ok(["demo", "--json"])).trim().split("\n");
    const result = JSON.parse(lines.at(-1) as string) as Record<string, number> & { answers: { base: string }[] };
    expect(result).toMatchObject({ type: "result", style: "emoji", heldOut: 40, rightBefore: 0, adapter: "reft-demo" });
    expect(result.rightAfter).toBeGreaterThanOrEqual(36);
    expect(result.trainableParameters).toBe(1028);
    expect(result.answers).toHaveLength(40);
    expect(lines.filter((line) => (JSON.parse(line) as { type: string }).type === "step")).toHaveLength(100);
  });

  test("its report shows the parameter lines, answers side by side, the share and the next command, which works", async () => {
    const { code, stdout, stderr } = await reft(["demo", "--style", "shout"]);
    expect(code, stderr).toBe(0);
    expect(stdout).toContain("trainable intervention params: 1,028 || trainable model params: 0");
    expect(stdout).toMatch(/What does a goat say\?\s+base +A goat says maa\.\s+edited +HEY! A GOAT SAYS MAA!/);
    expect(stdout).toMatch(/before 0 of 40 \(0 %\)\n\s+after {2}(40|3[6-9]) of 40/);
    expect(stderr).toMatch(/step 100\/100 \| loss [\d.e-]+ \| [\d,]+ tokens\/s/);
    const next = /npx reft (chat --model builtin --adapter reft-demo)/.exec(stdout)?.[1] as string;
    expect(await ok(next.split(" "), { stdin: "What does a dog say?\n" })).toBe("HEY! A DOG SAYS WOOF!\n");
  });
});

describe("train, and what it leaves", () => {
  const adapter = "adapter";
  beforeAll(async () => {
    const stdout = await ok(["train", "--data", emoji, "--lr", "4e-3", "--batch-size", "10", "--output", adapter]);
    expect(stdout).toContain("Model builtin: llama, 6 layers, hidden size 128, on cpu");
    expect(stdout).toContain("Edit Loreft of rank 4 at block_output of layer 3, positions l1");
    expect(stdout).toContain("trainable intervention params: 1,028 || trainable model params: 0");
    expect(stdout).toContain(`npx reft chat --adapter ${adapter}`);
  });

  test("info tells what the adapter holds", async () => {
    expect(await json(["info", "--adapter", adapter])).toMatchObject({
      base: "builtin",
      edits: ["Loreft of rank 4 at block_output of layer 3"],
      positions: "l1",
      template: "chat",
    });
  });

  test("generate finds the base model by itself, compares, and reads files and stdin", async () => {
    const ask = ["generate", "--adapter", adapter];
    expect(await ok([...ask, "--prompt", "What does a goat say?"])).toBe("🐐 🔊 maa\n");
    const compared = await ok([...ask, "--compare", "--prompt", "What does a goat say?"]);
    expect(compared).toMatch(/A goat says maa\. +🐐 🔊 maa/);
    const { answers } = await json<{ answers: object[] }>([...ask, "--compare", "--input", "held-out.jsonl"]);
    expect(answers).toHaveLength(40);
    expect(answers[0]).toMatchObject({ answer: "🐐 🔊 maa", base: "A goat says maa.", finishReason: "eos" });
    const piped = await ok(ask, { stdin: "What does a goat say?\n\nWhat does a dog say?\n" });
    expect(piped).toBe("🐐 🔊 maa\n🐕 🔊 woof\n");
  });

  test("convert writes it for pyreft, reads it back, and says what it takes for granted", async () => {
    const there = await reft(["convert", adapter, "for-python", "--to", "pyreft"]);
    expect(there.code, there.stderr).toBe(0);
    expect(there.stdout).toMatch(/^for-python: 1 edit of reft's, written for pyreft \(2 files, [\d.]+ kB\)\n$/);
    expect(there.stderr).toMatch(/not in the files: positions l1: give pyreft unit_locations/);
    const back = await json<object>(["convert", "for-python", "back", "--to", "reft"]);
    expect(back).toMatchObject({ from: "pyreft", to: "reft", edits: 1, assumed: [], lost: [] });
    for (const file of ["reft.safetensors", "reft_config.json"])
      expect(bytes(join("back", file))).toBe(bytes(join(adapter, file)));
    const plain = join("for-python", "config.json");
    const { reft: _, ...config } = JSON.parse(readFileSync(join(folder, plain), "utf8")) as Record<string, unknown>;
    writeFileSync(join(folder, plain), JSON.stringify(config));
    const unnamed = await reft(["convert", "for-python", "again", "--to", "reft"]);
    expect(unnamed).toMatchObject({ code: 2, stdout: "" });
    expect(unnamed.stderr).toMatch(/does not say which model.*\n.*--base/);
    const again = await reft(["convert", "for-python", "again", "--to", "reft", "--base", "builtin"]);
    expect(again.code, again.stderr).toBe(0);
    expect(again.stderr).toMatch(/assumed: activation linear.*\nassumed: positions l1/);
    const said = ["generate", "--adapter", "again", "--template", "chat", "--prompt", "What does a goat say?"];
    expect(await ok(said)).toBe("🐐 🔊 maa\n");
    const refused = await reft(["generate", "--adapter", "for-python", "--prompt", "x"]);
    expect(refused.stderr).toMatch(/reft convert/);
    for (const [args, message] of [
      [["nowhere", "x", "--to", "reft"], /nowhere does not exist/],
      [[adapter, "x", "--to", "reft"], /is an adapter of ours already/],
      [[adapter, adapter, "--to", "pyreft"], /read and written/],
      [["for-python", "again", "--to", "reft", "--base", "builtin"], /not empty/],
      [["for-python", "--to", "reft"], /missing required argument 'out'/],
    ] as const) {
      const failed = await reft(["convert", ...args]);
      expect(failed.code).toBe(2);
      expect(failed.stderr).toMatch(message);
    }
  });

  test("a seeded draw can be repeated", async () => {
    const draw = ["generate", "--prompt", "Hello", "--temperature", "3", "--max-new-tokens", "12", "--seed"];
    const first = await ok([...draw, "7"]);
    expect(await ok([...draw, "7"])).toBe(first);
    expect(await ok([...draw, "8"])).not.toBe(first);
  });

  test("beams: the best answers, in text and as JSON, searched or drawn", async () => {
    const ask = ["generate", "--prompt", "What does a goat say?", "--num-beams", "4"];
    const best = await ok(ask);
    const several = [...ask, "--num-return-sequences", "3", "--length-penalty", "0.5", "--early-stopping", "never"];
    expect((await ok(several)).trimEnd().split("\n").length).toBeGreaterThanOrEqual(3);
    const { answers } = await json<{ answers: { answer: string; score: number; alternatives: object[] }[] }>(several);
    expect(answers[0]?.alternatives).toHaveLength(2);
    expect(answers[0]?.score).toBeLessThan(0);
    expect(await ok([...ask, "--length-penalty", "1"])).toBe(best);
    const drawn = [...ask, "--temperature", "9", "--seed"];
    expect(await ok([...drawn, "1"])).toBe(await ok([...drawn, "1"]));
    expect(await ok([...drawn, "1"])).not.toBe(await ok([...drawn, "2"]));
    const measured = await json<{ base: object }>([
      "eval",
      "--model",
      "builtin",
      "--data",
      emoji,
      "--generate",
      "--num-beams",
      "2",
      "--max-new-tokens",
      "8",
    ]);
    expect(measured.base).toHaveProperty("exact");
  });

  test("chat goes over to the base model and back, each with its own conversation", async () => {
    const stdin = "What does a goat say?\n/base\nWhat does a goat say?\n/edited\nWhat does a dog say?\n/exit\nnever\n";
    expect(await ok(["chat", "--adapter", adapter], { stdin })).toBe("🐐 🔊 maa\nA goat says maa.\n🐕 🔊 woof\n");
  });

  test("eval measures base and edited", async () => {
    interface Score {
      readonly loss: number;
      readonly perplexity: number;
      readonly exact?: number;
    }
    type Scores = { readonly base: Score; readonly edited?: Score };
    const { base, edited } = await json<Scores>([
      "eval",
      "--adapter",
      adapter,
      "--data",
      "held-out.jsonl",
      "--generate",
    ]);
    expect(base.exact).toBe(0);
    expect(edited?.exact).toBeGreaterThanOrEqual(36);
    expect(edited?.loss).toBeLessThan(base.loss / 2);
    expect(base.perplexity).toBeCloseTo(Math.exp(base.loss), 5);
    const plain = await json<Scores>(["eval", "--data", "held-out.jsonl"]);
    expect(plain.base.loss).toBeCloseTo(base.loss, 5);
    expect(plain.edited).toBeUndefined();
  });
});

describe("a run that is broken off", () => {
  const flags = ["--data", emoji, "--max-steps", "60", "--batch-size", "4", "--dropout", "0.1", "--logging-steps", "5"];

  test("says how to go on, and going on ends in the same bytes as an unbroken run", async () => {
    const whole = ok(["train", ...flags, "--output", "unbroken"]);
    let killed = false;
    const broken = await reft(["train", ...flags, "--output", "it's broken"], {
      watch: (stderr, kill) => {
        if (killed || !stderr.includes("step 5/60")) return;
        killed = true;
        kill("SIGINT");
      },
    });
    expect(broken.code, broken.stderr).toBe(130);
    expect(existsSync(join(folder, "it's broken/reft.safetensors"))).toBe(false);
    const command = /Go on with:\n\s+npx reft (.*)\n/.exec(broken.stderr)?.[1] as string;
    expect(command).toMatch(/--output 'it'\\''s broken' --resume 'it'\\''s broken\/checkpoint-\d+'$/);
    await ok(words(command));
    await whole;
    expect(bytes("it's broken/reft.safetensors")).toBe(bytes("unbroken/reft.safetensors"));
    expect(bytes("it's broken/reft_config.json")).toBe(bytes("unbroken/reft_config.json"));
  });

  /** A shell's reading of the printed command. */
  function words(command: string): string[] {
    return spawnSync("sh", ["-c", `printf '%s\\n' ${command}`], { encoding: "utf8" })
      .stdout.trim()
      .split("\n");
  }
});

test("a run file gives what flags do not; flags win", async () => {
  writeFile("run.yaml", [
    `data: ${emoji}`,
    "layers: [2, 3]",
    "positions: f1+l1",
    "rank: 2",
    "max-steps: 3",
    "lr: 1e-3",
    "evalSplit: 0.2",
    "output: from-file",
  ]);
  const lines = (await ok(["train", "--config", "run.yaml", "--rank", "3", "--json"])).trim().split("\n");
  const events = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(events.map((e) => e.type)).toEqual(["start", "step", "step", "step", "end", "result"]);
  expect(events[0]).toMatchObject({ examples: 8, totalSteps: 3 });
  expect(events.at(-1)).toMatchObject({ adapter: "from-file", evaluation: { loss: expect.any(Number) } });
  const { edits } = await json<{ edits: string[] }>(["info", "--adapter", "from-file"]);
  // An edit for either end at both layers.
  expect(edits).toHaveLength(4);
  expect(edits[0]).toBe("Loreft of rank 3 at block_output of layer 2");
});

test("a model in 4 bits is coded once, trained through, and answers", async () => {
  const env = { REFT_CACHE: join(folder, "codes") };
  const bits = ["--load-in-4bit", "--quant-block-size", "16"];
  const data = join(builtin, "examples/emoji.jsonl");
  const train = ["train", "--data", data, "--layers", "3", "--max-steps", "60", ...bits];
  const first = await reft([...train, "--output", "small"], { env });
  expect(first.code, first.stderr).toBe(0);
  expect(first.stderr).toMatch(/Coding [\d,]+ weights of builtin, once/);
  const asked = await reft(["generate", "--adapter", "small", "--prompt", "What sound does a sheep make?", ...bits], {
    env,
  });
  expect(asked.stdout).toContain("🐑");
  expect(asked.stderr).not.toContain("Coding");
});

test("a model from the hub is downloaded once, and an adapter remembers its revision", async () => {
  const names = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
  ];
  const files = Object.fromEntries(names.map((name) => [name, readFileSync(join(builtin, name))]));
  const hub = await startHub([{ id: "owner/small", files }]);
  try {
    const env = { HF_HUB_OFFLINE: "", HF_ENDPOINT: hub.endpoint };
    const flags = ["train", "--model", "owner/small", "--data", emoji, "--max-steps", "1", "--output", "from-hub"];
    const { code, stderr } = await reft(flags, { env });
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("Downloading model.safetensors of owner/small (5.4 MB)");
  } finally {
    await hub.close();
  }
  const info = await json(["info", "--adapter", "from-hub"]);
  expect(info).toMatchObject({ base: "owner/small", baseRevision: defaultCommit });
  // No hub any more: the cache serves.
  const { code, stderr } = await reft(["generate", "--adapter", "from-hub", "--prompt", "What does a goat say?"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
});

test("the run file that comes as an example works", async () => {
  const [file, output] = [join(root, "examples/emoji.yaml"), "example"];
  const events = await ok(["train", "--config", file, "--data", emoji, "--output", output, "--json"]);
  expect(events).toContain(`"type":"result","adapter":"${output}"`);
  expect(await ok(["generate", "--adapter", output, "--prompt", "What does a goat say?"])).toBe("🐐 🔊 maa\n");
});

test("--help teaches with examples, --version and info say what this is", async () => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  expect(await ok(["--version"])).toBe(`${version}\n`);
  expect(await ok([])).toContain("reft demo");
  for (const command of ["demo", "train", "generate", "chat", "eval", "info"])
    expect(await ok([command, "--help"])).toMatch(new RegExp(`Examples:\\n {2}# .+\\n {2}reft ${command}`));
  const info = await json<{ reft: string; devices: string[] }>(["info"]);
  expect(info.reft).toBe(version);
  expect(info.devices).toContain("cpu");
  expect(await json(["info", "--model", "builtin"])).toMatchObject({ family: "llama", layers: 6, hiddenSize: 128 });
});

/** A copy of the built-in model with something wrong. */
function brokenModel(name: string, change: (path: string) => void): string {
  const path = join(folder, name);
  cpSync(builtin, path, { recursive: true });
  change(path);
  return name;
}

function changeConfig(name: string, changes: object): string {
  return brokenModel(name, (path) => {
    const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8")) as object;
    writeFileSync(join(path, "config.json"), JSON.stringify({ ...config, ...changes }));
  });
}

/** Rewrites the header of model.safetensors, padded to its old length. */
function changeHeader(name: string, edit: (header: Record<string, { data_offsets: number[] }>) => void): string {
  return brokenModel(name, (path) => {
    const file = join(path, "model.safetensors");
    const old = readFileSync(file);
    const length = Number(old.readBigUInt64LE(0));
    const header = JSON.parse(old.subarray(8, 8 + length).toString()) as Record<string, { data_offsets: number[] }>;
    edit(header);
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file, Buffer.concat([size, text, old.subarray(8 + length)]));
  });
}

describe("bad input", () => {
  const train = (...more: string[]): string[] => ["train", "--data", emoji, "--output", "never", ...more];
  const weights = (path: string): string => join(path, "model.safetensors");
  const firstTwo = (header: Record<string, { data_offsets: number[] }>): { data_offsets: number[] }[] =>
    Object.entries(header).flatMap(([name, tensor]) => (name === "__metadata__" ? [] : [tensor]));
  const withModel = (name: string, change: (path: string) => void) => (): string[] =>
    train("--model", brokenModel(name, change));

  const cases: [what: string, args: () => string[], says: RegExp][] = [
    [
      "unknown model_type",
      () => train("--model", changeConfig("bert", { model_type: "bert" })),
      /model_type "bert".*\n.*gpt2, llama, mistral, qwen2, qwen3/,
    ],
    [
      "unknown config value",
      () => train("--model", changeConfig("act", { hidden_act: "squareplus" })),
      /hidden_act.*squareplus/,
    ],
    [
      "4 bits and 8",
      () => train("--load-in-4bit", "--load-in-8bit"),
      /^error: loadIn4bit and loadIn8bit are both set/m,
    ],
    ["blocks of 48", () => train("--load-in-4bit", "--quant-block-size", "48"), /quantBlockSize is 48/],
    ["int8 without bits", () => train("--int8-activations", "always"), /int8Activations is for quantised models/],
    ["missing safetensors", withModel("none", (path) => rmSync(weights(path))), /model\.safetensors/],
    [
      "truncated safetensors",
      withModel("short", (path) => writeFileSync(weights(path), readFileSync(weights(path)).subarray(0, 1e6))),
      /model\.safetensors/,
    ],
    [
      "header larger than the file",
      withModel("long", (path) => {
        const file = readFileSync(weights(path));
        file.writeBigUInt64LE(BigInt(file.length) * 2n);
        writeFileSync(weights(path), file);
      }),
      /header/,
    ],
    [
      "overlapping offsets",
      () =>
        train(
          "--model",
          changeHeader("overlap", (header) => {
            const [a, b] = firstTwo(header) as [{ data_offsets: number[] }, { data_offsets: number[] }];
            const length = (b.data_offsets[1] as number) - (b.data_offsets[0] as number);
            b.data_offsets = [a.data_offsets[0] as number, (a.data_offsets[0] as number) + length];
          }),
        ),
      /model\.safetensors.*(overlap|twice|gap|covers)/i,
    ],
    [
      "offsets out of range",
      () =>
        train(
          "--model",
          changeHeader("outside", (header) => {
            const tensors = firstTwo(header);
            for (const tensor of tensors) tensor.data_offsets = tensor.data_offsets.map((offset) => offset + 1e9);
          }),
        ),
      /model\.safetensors/,
    ],
    [
      "a shard missing",
      withModel("shard", (path) => {
        const index = { weight_map: { "model.embed_tokens.weight": "model-00001-of-00002.safetensors" } };
        writeFileSync(join(path, "model.safetensors.index.json"), JSON.stringify(index));
        rmSync(weights(path));
      }),
      /model-00001-of-00002\.safetensors/,
    ],
    ["a model that is nowhere", () => train("--model", "./nowhere"), /folder \.\/nowhere does not exist/],
    ["a hub model without a network", () => train("--model", "some/model"), /some\/model.*HF_HUB_OFFLINE/],
    ["layer", () => train("--layers", "6"), /layer 6 does not exist.*0–5/],
    ["component", () => train("--component", "head_output"), /"head_output".*\n.*block_output/],
    ["rank", () => train("--rank", "128"), /rank 128.*128.*\n.*1 to 127/],
    ["positions", () => train("--positions", "x3"), /"x3".*\n.*f7\+l7/],
    ["intervention", () => train("--intervention", "nope"), /"nope".*\n.*Loreft/],
    ["device", () => train("--device", "tpu"), /"tpu".*cpu/],
    ["empty data", () => ["train", "--data", writeFile("empty.jsonl", []), "--output", "never"], /empty\.jsonl/],
    ["missing data", () => ["train", "--data", "no.jsonl", "--output", "never"], /no\.jsonl does not exist/],
    [
      "a row without its answer",
      () => [
        "train",
        "--data",
        writeFile("field.jsonl", ['{"prompt":"a","completion":"b"}', '{"prompt":"a"}']),
        "--output",
        "never",
      ],
      /field\.jsonl:2.*"completion".*missing/,
    ],
    ["no answer tokens left", () => train("--max-length", "5"), /no answer tokens/],
    ["a flag that does not exist", () => train("--rnak", "4"), /--rnak/],
    ["a flag that is no number", () => train("--rank", "four"), /--rank.*"four"/],
    ["a training argument out of range", () => train("--lr", "-1"), /learningRate is -1/],
    [
      "an option in the run file that does not exist",
      () => train("--config", writeFile("bad.yaml", ["rnak: 4"])),
      /rnak/,
    ],
    ["a run file that is no YAML", () => train("--config", writeFile("no.yaml", ["a: [1"])), /no\.yaml/],
    ["an output folder below a file", () => ["train", "--data", emoji, "--output", "held-out.jsonl/x"], /ENOTDIR/],
    [
      "an output folder that holds files",
      () => ["train", "--data", emoji, "--output", "."],
      /not empty.*\n.*--overwrite/,
    ],
    ["resume without a checkpoint", () => train("--resume"), /never has no checkpoint/],
    ["a checkpoint that is none", () => train("--resume", "models"), /models is no checkpoint/],
    ["an adapter that is none", () => ["chat", "--adapter", "nothing"], /nothing is no adapter/],
    ["evaluation without data", () => train("--eval-strategy", "epoch"), /evalStrategy.*\n.*--eval-data/],
    ["a demo over somebody's work", () => ["demo", "--output", "models"], /models is not empty.*\n.*--overwrite/],
    ["nothing to ask", () => ["generate"], /there is no prompt/],
    ["nothing to compare", () => ["generate", "--compare", "--prompt", "a"], /--adapter/],
  ];

  beforeAll(() => cpSync(join(builtin, "examples"), join(folder, "models"), { recursive: true }));

  test.concurrent.each(cases)("%s", async (_, args, says) => {
    const line = args();
    const { code, stdout, stderr } = await reft(line);
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(says);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stdout).toBe("");
    expect(existsSync(join(folder, "never"))).toBe(false);
  });

  test("a loss that is no number: the last good state is kept, and what to try is said", async () => {
    const flags = ["--data", emoji, "--lr", "1e38", "--max-grad-norm", "0", "--output", "diverged"];
    const { code, stderr } = await reft(["train", ...flags]);
    expect(code, stderr).toBe(2);
    expect(stderr).toMatch(/the loss became NaN.*at step \d+.*kept in diverged\/checkpoint-\d+/);
    expect(stderr).toContain("lower learningRate");
    const [checkpoint] = readdirSync(join(folder, "diverged")).filter((name) => name.startsWith("checkpoint-"));
    expect(await ok(["info", "--adapter", `diverged/${checkpoint}`])).toContain("builtin");
    expect(existsSync(join(folder, "diverged/reft.safetensors"))).toBe(false);
  });

  test.skipIf(process.platform === "win32")("no room to save: the old adapter stays as it was", async () => {
    const flags = ["train", "--data", emoji, "--max-steps", "1", "--output", "full"];
    await ok(flags);
    const before = [bytes("full/reft.safetensors"), bytes("full/reft_config.json")];
    // Files may have 1 kB: the weights have more.
    const limited = [
      "-c",
      'ulimit -f 2; exec "$@" 2>&1 | cat',
      "sh",
      process.execPath,
      program,
      ...flags,
      "--overwrite",
    ];
    const { stdout } = spawnSync("sh", limited, { cwd: folder, encoding: "utf8" });
    expect(stdout).toMatch(/error: Cannot write the folder full: .*\(EFBIG\)/);
    expect([bytes("full/reft.safetensors"), bytes("full/reft_config.json")]).toEqual(before);
    expect(readdirSync(join(folder, "full")).sort()).toEqual(["log.jsonl", "reft.safetensors", "reft_config.json"]);
  });

  test("an adapter of another base is refused, with both shapes", async () => {
    await ok(["train", "--data", emoji, "--max-steps", "1", "--output", "six-layers"]);
    const model = changeConfig("five-layers", { num_hidden_layers: 5 });
    const { code, stderr } = await reft(["generate", "--model", model, "--adapter", "six-layers", "--prompt", "a"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/six-layers was made for builtin .*6 layers.*five-layers is .*5 layers/);
  });
});
