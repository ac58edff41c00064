/** Data sets by id: which files make up a split, as Python's `datasets` has it, and how they come from a hub on this machine. */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type LoadDatasetOptions, type LoadedDataset, loadDataset } from "../src/hub/dataset.js";
import { convertedRevision, layoutOf } from "../src/hub/dataset-layout.js";
import { matchesGlob } from "../src/hub/glob.js";
import { defaultCommit, type HubRepo, type HubServer, startHub } from "./hub-server.js";
import { golden, goldenJson } from "./support.js";

interface Layout {
  readonly files: readonly string[];
  readonly card: string | null;
  readonly usual: string | null;
  readonly configs: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;
}

describe("files by config and split, as Python's datasets takes them", () => {
  const layouts = goldenJson<Readonly<Record<string, Layout>>>("hub/layouts.json");
  test.each(Object.entries(layouts))("%s", (_, { files, card, usual, configs }) => {
    const layout = layoutOf(files, card ?? undefined, "main");
    for (const [name, splits] of Object.entries(configs))
      expect(Object.fromEntries(layout.configs.get(name) ?? []), name).toEqual(splits);
    if (usual !== null) expect(layout.usual).toBe(usual);
  });

  test("folders that are no split's are configs of their own, one of which has to be named", () => {
    const { configs, usual } = layoutOf(["cola/train.csv", "cola/test.csv", "rte/train.csv"], undefined, "main");
    expect(usual).toBeUndefined();
    expect(Object.fromEntries(configs.get("cola") ?? [])).toEqual({
      train: ["cola/train.csv"],
      test: ["cola/test.csv"],
    });
  });

  test("the hub's Parquet copy", () => {
    const paths = [
      "main/train/0000.parquet",
      "main/train/0001.parquet",
      "other/partial-test/0000.parquet",
      "README.md",
    ];
    const { configs, usual } = layoutOf(paths, undefined, convertedRevision);
    expect(usual).toBeUndefined();
    expect(Object.fromEntries(configs.get("main") ?? [])).toEqual({ train: paths.slice(0, 2) });
    expect([...(configs.get("other") ?? [])]).toEqual([["test", [paths[2]]]]);
  });

  test.each([
    "../train.csv",
    "/etc/train.csv",
    "a/../../train.csv",
    "a\\..\\train.csv",
    "C:train.csv",
    "a//train.csv",
    "a\u0000.csv",
  ])("a listed path %j is none of a data set", (path) =>
    expect(layoutOf([path], undefined, "main").configs.size).toBe(0),
  );

  test.each(["---\nconfigs: 3\n---\n", "---\nconfigs: [{config_name: [1]}]\n---\n", "---\n: : [\n---\n", "---\n"])(
    "a card that makes no sense, %j, is passed over",
    (card) => expect(layoutOf(["train.csv"], card, "main").usual).toBe("default"),
  );
});

describe("patterns", () => {
  test.each([
    ["data/train-*", "data/train-00000-of-00001.parquet", true],
    ["data/train-*", "data/deep/train-0.parquet", false],
    ["**/*.csv", "a.csv", true],
    ["**/*.csv", "a/b/c.csv", true],
    ["x/**", "x/y/z", true],
    ["x/**", "x", false],
    ["./x/?.csv", "x/1.csv", true],
    ["x/[a-c]*", "x/bed", true],
    ["x/[!a-c]*", "x/bed", false],
    ["x/[", "x/[", true],
    ["x/🐄*", "x/🐄.csv", true],
    ["a.b", "aXb", false],
  ])("%s and %s: %s", (pattern, path, is) => expect(matchesGlob(path, pattern)).toBe(is));

  test("no pattern takes for ever", () => {
    expect(matchesGlob("a".repeat(500), `${"a*".repeat(200)}b`)).toBe(false);
    expect(matchesGlob("a/".repeat(200), `${"**/a/".repeat(100)}b`)).toBe(false);
  });
});

const rows = (split: string, n = 2): string =>
  Array.from({ length: n }, (_, i) => `${JSON.stringify({ prompt: `${split} ${i}`, completion: "x" })}\n`).join("");
const parquet = readFileSync(golden("data/rows.snappy.parquet"));
const plain: HubRepo = {
  type: "dataset",
  id: "owner/plain",
  files: {
    "README.md": "# plain",
    "data/train.jsonl": rows("train", 4),
    "data/test.jsonl": rows("test"),
    "image.png": "png",
  },
};
const configured: HubRepo = {
  type: "dataset",
  id: "owner/configured",
  files: {
    "README.md": `---
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: socratic
  data_files: [{split: train, path: "socratic/*"}]
---
`,
    "main/train-00000-of-00002.jsonl": rows("first"),
    "main/train-00001-of-00002.jsonl": rows("second"),
    "main/test-00000-of-00001.parquet": parquet,
    "socratic/train-00000-of-00001.parquet": parquet,
  },
  lfs: ["main/test-00000-of-00001.parquet", "socratic/train-00000-of-00001.parquet"],
};
const scripted: HubRepo = {
  type: "dataset",
  id: "owner/scripted",
  files: { "README.md": "# scripted", "scripted.py": "print()" },
  branches: {
    [convertedRevision]: { files: { "default/train/0000.parquet": parquet }, commit: "f".repeat(40) },
    ["f".repeat(40)]: { files: { "default/train/0000.parquet": parquet }, commit: "f".repeat(40) },
  },
};
const empty: HubRepo = { type: "dataset", id: "owner/empty", files: { "pictures.zip": "zip" } };
const secret: HubRepo = { ...plain, id: "owner/secret", private: true };
const gated: HubRepo = { ...plain, id: "owner/gated", gated: true };
const token = "secret-token";

let hub: HubServer;
let cacheDir: string;
beforeEach(async () => {
  cacheDir = await mkdtemp(join(tmpdir(), "reft-datasets-"));
  hub = await startHub([plain, configured, scripted, empty, secret, gated], { token });
});
afterEach(async () => {
  await hub.close();
  rmSync(cacheDir, { recursive: true, force: true });
});

const load = (id: string, options: LoadDatasetOptions = {}): Promise<LoadedDataset> =>
  loadDataset(id, { cacheDir, endpoint: hub.endpoint, patience: { pauses: [0, 0], stall: 1000 }, ...options });
const prompts = ({ rows: found }: LoadedDataset): unknown[] => found.map(({ value }) => value.prompt);
const asked = (): number => hub.requests.length;

describe("from a hub", () => {
  test("a split's rows, in the cache where Python looks for them", async () => {
    const found = await load("owner/plain");
    expect(found).toMatchObject({
      name: "default",
      split: "train",
      revision: defaultCommit,
      files: ["data/train.jsonl"],
    });
    expect(prompts(found)).toEqual(["train 0", "train 1", "train 2", "train 3"]);
    const repo = join(cacheDir, "datasets--owner--plain");
    expect(readFileSync(join(repo, "refs/main"), "utf8")).toBe(defaultCommit);
    expect(readdirSync(join(repo, "snapshots", defaultCommit)).sort()).toEqual(["README.md", "data"]);
    expect(readdirSync(join(repo, "snapshots", defaultCommit, "data"))).toEqual(["train.jsonl"]);
  });

  test("what is there is not asked for again; another split is", async () => {
    await load("owner/plain");
    const before = asked();
    expect((await load("owner/plain")).rows).toHaveLength(4);
    expect(asked()).toBe(before);
    expect(prompts(await load("owner/plain", { split: "test" }))).toEqual(["test 0", "test 1"]);
    expect(asked()).toBeGreaterThan(before);
  });

  test("configs of the card, several files of a split, and Parquet from the second origin", async () => {
    const found = await load("owner/configured", { name: "main" });
    expect(prompts(found)).toEqual(["first 0", "first 1", "second 0", "second 1"]);
    expect(found.rows.map(({ line }) => line)).toEqual([1, 2, 3, 4]);
    const { rows: other } = await load("owner/configured", { name: "socratic" });
    expect(other.length).toBeGreaterThan(0);
  });

  test("the hub's Parquet copy where the branch holds nothing readable, offline too", async () => {
    const found = await load("owner/scripted");
    expect(found).toMatchObject({ files: ["default/train/0000.parquet"], revision: "f".repeat(40) });
    const again = await load("owner/scripted", { offline: true });
    expect(again.rows).toEqual(found.rows);
  });

  test("by commit", async () => {
    expect((await load("owner/plain", { revision: defaultCommit })).rows).toHaveLength(4);
    await expect(load("owner/plain", { revision: "v9" })).rejects.toThrow('owner/plain has no revision "v9"');
  });

  test.each([
    ["train[:2]", ["train 0", "train 1"]],
    ["train[-1:]", ["train 3"]],
    ["train[25%:75%]", ["train 1", "train 2"]],
  ])("a part: %s", async (split, wanted) => expect(prompts(await load("owner/plain", { split }))).toEqual(wanted));

  test("a download that breaks off goes on", async () => {
    hub.faults.push({ path: "data/train.jsonl", kind: "drop", value: 20, times: 1 });
    expect((await load("owner/plain")).rows).toHaveLength(4);
    expect(hub.requests.some(({ range }) => range === "bytes=20-")).toBe(true);
  });
});

describe("offline", () => {
  test("with a cache, and without", async () => {
    await expect(load("owner/plain", { offline: true })).rejects.toThrow("is not in the cache");
    await load("owner/plain");
    const before = asked();
    expect((await load("owner/plain", { offline: true })).rows).toHaveLength(4);
    await expect(load("owner/plain", { offline: true, split: "test" })).rejects.toThrow("is not in the cache");
    expect(asked()).toBe(before);
  });

  test("what Python has downloaded is used, half of it is not", async () => {
    const snapshot = join(cacheDir, "datasets--owner--configured/snapshots", defaultCommit);
    const put = (path: string): void => {
      const [blob, place] = [join(cacheDir, path.replaceAll("/", "_")), join(snapshot, path)];
      mkdirSync(dirname(place), { recursive: true });
      writeFileSync(blob, configured.files[path] as string);
      symlinkSync(blob, place);
    };
    put("README.md");
    put("main/train-00000-of-00002.jsonl");
    const options = { offline: true, name: "main", revision: defaultCommit };
    await expect(load("owner/configured", options)).rejects.toThrow("is not in the cache");
    put("main/train-00001-of-00002.jsonl");
    expect((await load("owner/configured", options)).rows).toHaveLength(4);
    // Online the hub is asked whether that is all.
    expect((await load("owner/configured", { ...options, offline: false })).rows).toHaveLength(4);
    expect(asked()).toBeGreaterThan(0);
  });

  test("an unreachable hub and a cache", async () => {
    await load("owner/plain");
    await hub.close();
    expect((await load("owner/plain", { refresh: true })).rows).toHaveLength(4);
    hub = await startHub([]);
  });
});

describe("refusals", () => {
  test.each([
    [
      "owner/plain",
      { split: "dev" },
      'owner/plain has no split "dev". Name one, as in owner/plain#train. There are train, test.',
    ],
    ["owner/plain", { name: "odd" }, 'owner/plain has no config "odd".'],
    ["owner/plain", { split: "train[1:" }, '"train[1:" is no split.'],
    ["owner/plain", { split: "train[9:]" }, "holds no rows: the split has 4"],
    [
      "owner/configured",
      {},
      "has 2 configs, and none is named. Name one, as in owner/configured:main. There are main, socratic.",
    ],
    ["owner/configured", { name: "socratic", split: "test" }, 'owner/configured:socratic has no split "test"'],
    ["owner/configured", { name: "socratic", usualSplits: ["test", "validation"] }, undefined],
    ["owner/empty", {}, "owner/empty holds no file that could be read as rows."],
    ["owner/secret", {}, 'owner/secret (revision "main") does not exist at'],
    ["owner/secret", {}, "or is private. Check the spelling; for a private one set HF_TOKEN. If you meant a file"],
    ["owner/gated", {}, "owner/gated is gated"],
    ["owner/gated", {}, "/datasets/owner/gated, then set HF_TOKEN"],
    ["owner/none", {}, "does not exist at"],
    ["../plain", {}, "does not exist"],
  ] as const)("%s %j", async (id, options, message) => {
    const loaded = load(id, options);
    if (message === undefined) await expect(loaded).resolves.toMatchObject({ split: "train" });
    else await expect(loaded).rejects.toThrow(message);
  });

  test("private and gated ones come with a token", async () => {
    expect((await load("owner/secret", { token })).rows).toHaveLength(4);
    expect((await load("owner/gated", { token })).rows).toHaveLength(4);
    await expect(load("owner/gated", { token: "wrong", cacheDir: `${cacheDir}-2` })).rejects.toThrow(/token/);
  });

  test("more than fits into memory is refused before it is fetched", async () => {
    const big = { ...plain, id: "owner/big", files: { "train.jsonl": rows("train") } };
    hub.repos.push(big);
    const size = 2 ** 28 + 1;
    const lying: typeof fetch = async (input, init) => {
      const response = await fetch(input, init);
      if (!String(input).includes("/tree/")) return response;
      const listed = (await response.json()) as { size: number }[];
      return new Response(JSON.stringify(listed.map((file) => ({ ...file, size }))), {
        headers: { "content-type": "application/json" },
      });
    };
    await expect(load("owner/big", { fetch: lying })).rejects.toThrow(
      `train of owner/big has ${size} bytes in 1 files`,
    );
    expect(hub.requests.some(({ path }) => path.includes("/resolve/"))).toBe(false);
  });

  test("changed bytes are refused, and nothing gets a name", async () => {
    hub.faults.push({ path: "data/train.jsonl", kind: "wrongBytes" });
    await expect(load("owner/plain")).rejects.toThrow(/has hash/);
    expect(existsSync(join(cacheDir, "datasets--owner--plain/snapshots"))).toBe(false);
  });

  test("a broken file is named", async () => {
    hub.repos.push({ ...plain, id: "owner/broken", files: { "train.jsonl": '{"a":' } });
    await expect(load("owner/broken")).rejects.toThrow(/train\.jsonl:1 is not valid JSON/);
  });
});
