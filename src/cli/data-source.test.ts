/** What --data names: files on this machine before data sets of the hub, splits, and what is said of them. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { type HubServer, startHub } from "../../test/hub-server.js";
import { UserError } from "../errors.js";
import { hubDataset, readSource, type SourceOptions } from "./data-source.js";
import { readDataSets } from "./task-data.js";
import type { Terminal } from "./terminal.js";

const csv = (...labels: readonly number[]): string =>
  `sentence,label\n${labels.map((label, i) => `text ${i},${label}`).join("\n")}\n`;

let folder: string;
let hub: HubServer;
const notes: string[] = [];
const plain = (text: string): string => text;
const terminal: Terminal = {
  result: () => {},
  write: () => {},
  note: (line = "") => void notes.push(line),
  interactive: false,
  columns: 80,
  bold: plain,
  dim: plain,
  good: plain,
  bad: plain,
};

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "reft-source-"));
  hub = await startHub([
    {
      type: "dataset",
      id: "owner/glue",
      files: {
        "cola/train.csv": csv(1, 0, 1),
        "cola/validation.csv": csv(1, 0),
        "cola/test.csv": csv(-1),
        "rte/train.csv": csv(0),
      },
    },
  ]);
  vi.stubEnv("HF_ENDPOINT", hub.endpoint);
  vi.stubEnv("HF_HUB_CACHE", join(folder, "hub"));
  vi.stubEnv("HF_HUB_OFFLINE", "");
});

afterAll(async () => {
  vi.unstubAllEnvs();
  await hub.close();
  rmSync(folder, { recursive: true, force: true });
});

test("a name is taken apart; what looks like a file, or is one, is none", async () => {
  const none = { name: undefined, split: undefined };
  expect(await hubDataset("owner/glue")).toEqual({ ...none, id: "owner/glue" });
  expect(await hubDataset("owner/glue:cola#train[:5]")).toEqual({ id: "owner/glue", name: "cola", split: "train[:5]" });
  expect(await hubDataset("owner/glue#test")).toEqual({ ...none, id: "owner/glue", split: "test" });
  for (const file of ["rows.jsonl", "data/rows.jsonl", "data/rows.CSV", "./owner/glue", "../rows", "/rows/a", "a/b/c"])
    expect(await hubDataset(file), file).toBeUndefined();
  // Where a file is meant for a data set's name, or the other way round.
  expect(await hubDataset("hf://datasets/owner/rows.json")).toMatchObject({ id: "owner/rows.json" });
  expect(await hubDataset("src/cli")).toBeUndefined();
});

describe("of the hub", () => {
  const read = (text: string, options: Partial<SourceOptions> = {}) =>
    readSource(text, { usualSplits: ["validation", "test"], ...options }, terminal);

  test("the usual split, and it is said which", async () => {
    notes.length = 0;
    const { path, rows } = await read("owner/glue:cola");
    expect(path).toBe("owner/glue:cola#validation");
    expect(rows.map(({ value }) => value.label)).toEqual(["1", "0"]);
    expect(notes.at(-1)).toBe("Data set owner/glue:cola#validation: 2 rows of 1 file");
  });

  test("a split by either way of naming it, and a part of one", async () => {
    expect((await read("owner/glue:cola#train")).rows).toHaveLength(3);
    const part = await read("owner/glue:cola", { split: "train[1:]" });
    expect(part.path).toBe("owner/glue:cola#train[1:]");
    expect(part.rows.map(({ value }) => value.label)).toEqual(["0", "1"]);
    expect((await read("owner/glue:rte", { usualSplits: ["train"] })).path).toBe("owner/glue:rte#train");
  });

  test.each([
    ["owner/glue:cola#train", { split: "test" }, /names a split, and --split test another one/],
    ["owner/glue", {}, /configs, and none is named.*There are .*cola, rte/s],
    ["owner/glue:rte#test", {}, /has no split "test".*owner\/glue:rte#train/s],
    ["owner/none", {}, /owner\/none/],
  ])("%s with %j is refused", async (text, options, message) => {
    const failure = read(text, options);
    await expect(failure).rejects.toBeInstanceOf(UserError);
    await expect(failure).rejects.toThrow(message);
  });

  test("a task's data set has the config's name, or the repository's", async () => {
    const at = { usualSplits: ["validation"] };
    const [cola] = await readDataSets("owner/glue:cola", ["cola", "rte"], at, terminal);
    expect(cola).toMatchObject({ set: "cola", file: { path: "owner/glue:cola#validation" } });
    const [whole] = await readDataSets("owner/glue:rte#train", ["GLUE"], at, terminal);
    expect(whole?.set).toBe("GLUE");
  });
});

describe("a file on this machine", () => {
  test("is read as before, and has neither split nor revision", async () => {
    const file = join(folder, "rows.csv");
    writeFileSync(file, csv(1));
    expect(await readSource(file, { usualSplits: ["train"] }, terminal)).toMatchObject({
      path: file,
      rows: [{ line: 2 }],
    });
    for (const [name, options] of [
      ["split", { split: "train" }],
      ["revision", { revision: "main" }],
    ] as const) {
      const failure = readSource(file, { usualSplits: ["train"], ...options }, terminal);
      await expect(failure).rejects.toThrow(`is a file on this machine: it has no ${name}. Leave the ${name} out`);
    }
  });
});
