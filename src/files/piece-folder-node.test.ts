/** Pieces on disk: found again by later runs, shared by two at once, and whatever happens to the files, never wrong. */

import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import * as fs from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { frozenFolderVariable, openPieceFolder, type PieceFolder, type Pieces } from "./piece-folder-node.js";

vi.mock("node:fs/promises", async (original) => ({ ...(await original<typeof fs>()) }));

let place: string;
const opened: PieceFolder[] = [];
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "reft-pieces-"));
});
afterEach(async () => {
  for (const folder of opened.splice(0)) await folder.dispose();
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  rmSync(place, { recursive: true, force: true });
});

const [shelfA, shelfB] = ["a".repeat(32), "b".repeat(32)];
const key = (n: number): string => n.toString(16).padStart(32, "0");
const bytes = (n: number, length = 100): Uint8Array => Uint8Array.from({ length }, (_, i) => n * 7 + i);

function folder(limit = 1e6, where: string | undefined = place): PieceFolder {
  const made = openPieceFolder(where, limit);
  opened.push(made);
  return made;
}

/** A shelf as a new run opens it. */
const shelf = (name = shelfA, limit?: number): Promise<Pieces> => folder(limit).shelf(name);

async function writeAll(pieces: Pieces, ...numbers: number[]): Promise<void> {
  for (const n of numbers) await pieces.write(key(n), bytes(n));
}

/** Those of pieces 1, 2 … n that are there; what is there must be right. */
async function found(pieces: Pieces, n = 3): Promise<number[]> {
  const all: number[] = [];
  for (let i = 1; i <= n; i++) {
    const piece = await pieces.read(key(i), 100);
    if (piece === undefined) continue;
    expect(piece).toEqual(bytes(i));
    all.push(i);
  }
  return all;
}

function files(end: string, name = shelfA): string[] {
  return readdirSync(join(place, name))
    .filter((file) => file.endsWith(end))
    .sort()
    .map((file) => join(place, name, file));
}

function change(path: string, at: number): void {
  const all = readFileSync(path);
  all[at] = (all[at] as number) ^ 1;
  writeFileSync(path, all);
}

describe("a folder", () => {
  test("gives a later run what an earlier one wrote; a run that writes nothing leaves no file", async () => {
    const first = await shelf();
    await writeAll(first, 1, 2, 3);
    expect(await found(first)).toEqual([1, 2, 3]);
    const second = await shelf();
    expect(await found(second)).toEqual([1, 2, 3]);
    expect(await second.read(key(4), 100)).toBeUndefined();
    expect(files(".data")).toHaveLength(1);
    expect(statSync(files(".data")[0] as string).mode & 0o77).toBe(0);
  });

  test("keeps what one name says from another's, and gives a run one shelf for one name", async () => {
    const own = folder();
    const a = await own.shelf(shelfA);
    await writeAll(a, 1);
    expect(await own.shelf(shelfA)).toBe(a);
    expect(await found(await own.shelf(shelfB))).toEqual([]);
  });

  test("has no piece of another length", async () => {
    await writeAll(await shelf(), 1);
    const later = await shelf();
    expect(await later.read(key(1), 99)).toBeUndefined();
    expect(await later.read(key(1), 100)).toBeUndefined();
    await writeAll(later, 1);
    expect(await found(later)).toEqual([1]);
  });

  test("is shared by two that write at once", async () => {
    const [a, b] = [await shelf(), await shelf()];
    await Promise.all([writeAll(a, 1, 2), writeAll(b, 2, 3), writeAll(a, 4), writeAll(b, 5)]);
    expect(await found(await shelf(), 5)).toEqual([1, 2, 3, 4, 5]);
    expect(files(".data")).toHaveLength(2);
  });

  test("may be named by the environment; the caller's word goes before", async () => {
    vi.stubEnv(frozenFolderVariable, join(place, "named"));
    const named = openPieceFolder(undefined, 1e6);
    opened.push(named);
    expect(named.persistent).toBe(true);
    await writeAll(await named.shelf(shelfA), 1);
    await writeAll(await shelf(shelfB), 1);
    expect(readdirSync(place).sort()).toEqual([shelfB, "named"]);
    vi.stubEnv(frozenFolderVariable, "");
    expect(openPieceFolder(undefined, 1e6).persistent).toBe(false);
  });

  test("tells backup programs to leave it out", async () => {
    await writeAll(await shelf(), 1);
    const tag = readFileSync(join(place, shelfA, "CACHEDIR.TAG"), "utf8");
    expect(tag).toMatch(/^Signature: 8a477f597d28d172789f06886806bc55\n/);
    expect(existsSync(join(place, "CACHEDIR.TAG"))).toBe(false);
  });
});

describe("damage is found, and mended by the next write:", () => {
  const damages: readonly [string, (data: string, index: string) => void, readonly number[]][] = [
    ["a changed byte", (data) => change(data, 150), [1, 3]],
    ["data cut off", (data) => truncateSync(data, 199), [1]],
    ["no data left", (data) => truncateSync(data, 0), []],
    ["data gone", (data) => rmSync(data), []],
    ["an index cut off", (_, index) => truncateSync(index, 79), [1]],
    ["an index gone", (_, index) => rmSync(index), []],
    ["an empty index", (_, index) => truncateSync(index, 0), []],
    ["garbage after the index", (_, index) => appendFileSync(index, Buffer.alloc(95, 0xa5)), [1, 2, 3]],
    ["garbage for an index", (_, index) => writeFileSync(index, Buffer.alloc(4000, 0xff)), []],
    ["a hole in the index", (_, index) => writeFileSync(index, readFileSync(index).fill(0, 40, 80)), [1, 3]],
    ["another place in the index", (_, index) => change(index, 40 + 16), [1, 3]],
    ["an index of absurd size", (_, index) => truncateSync(index, 65e6), []],
    [
      "a folder for a file",
      (data) => {
        rmSync(data);
        mkdirSync(data);
      },
      [],
    ],
  ];
  test.each(damages)("%s", async (_, damage, left) => {
    await writeAll(await shelf(), 1, 2, 3);
    damage(files(".data")[0] as string, files(".index")[0] as string);
    const later = await shelf();
    expect(await found(later)).toEqual(left);
    await writeAll(later, 1, 2, 3);
    expect(await found(later)).toEqual([1, 2, 3]);
    expect(await found(await shelf())).toEqual([1, 2, 3]);
  });

  test("while the run reads it", async () => {
    await writeAll(await shelf(), 1, 2, 3);
    const later = await shelf();
    expect(await later.read(key(1), 100)).toEqual(bytes(1));
    change(files(".data")[0] as string, 0);
    truncateSync(files(".data")[0] as string, 250);
    expect(await found(later)).toEqual([2]);
  });

  test("the folder deleted while it is used, and between runs", async () => {
    const first = await shelf();
    await writeAll(first, 1, 2);
    const later = await shelf();
    rmSync(join(place, shelfA), { recursive: true });
    await writeAll(first, 3);
    expect(await found(first)).toEqual([1, 2, 3]);
    expect(await found(later)).toEqual([]);
    await writeAll(later, 1);
    expect(await found(await shelf())).toEqual([1]);
  });
});

describe("a disk that takes no more", () => {
  test("the limit: what is beyond it is not kept", async () => {
    const pieces = await shelf(shelfA, 300);
    await writeAll(pieces, 1, 2, 3);
    expect(await found(pieces)).toEqual([1, 2]);
    expect(await found(await shelf())).toEqual([1, 2]);
    // It counts what earlier runs left, and adds no empty files.
    await writeAll(await shelf(shelfA, 300), 3);
    expect(await found(await shelf())).toEqual([1, 2]);
    expect(files(".data")).toHaveLength(1);
  });

  test("the limit: shelves not in use make room, the longest unused first; strangers' files stay", async () => {
    const names = ["1", "2", "3"].map((n) => n.repeat(32));
    for (const [i, name] of names.entries()) {
      await writeAll(await shelf(name), 1);
      for (const file of files(".data", name)) utimesSync(file, 1000, i === 0 ? 3000 : 1000 + i);
    }
    const strange = [join(place, "own.data"), join(place, shelfB, "my.data"), join(place, "notes", "x.index")];
    for (const path of strange) {
      mkdirSync(join(path, ".."), { recursive: true });
      writeFileSync(path, "mine");
      utimesSync(path, 1, 1);
    }
    const pieces = await shelf(shelfA, 660);
    await writeAll(pieces, 1, 2, 3);
    expect(await found(pieces)).toEqual([1, 2, 3]);
    expect(names.map((name) => files(".data", name).length)).toEqual([1, 0, 1]);
    expect(strange.map((path) => readFileSync(path, "utf8"))).toEqual(["mine", "mine", "mine"]);
  });

  test("a full disk: a piece written in part is not there, and nothing is thrown", async () => {
    const pieces = await shelf();
    await writeAll(pieces, 1);
    const handle = await fs.open(files(".data")[0] as string);
    const prototype = Object.getPrototypeOf(handle) as fs.FileHandle;
    await handle.close();
    const real = prototype.write;
    let left = 1;
    vi.spyOn(prototype, "write").mockImplementation(async function (this: fs.FileHandle, ...values: unknown[]) {
      if (left-- <= 0) throw Object.assign(new Error("injected"), { code: "ENOSPC" });
      const [data, from, , at] = values as [Uint8Array, number, number, number];
      return (real as (...v: unknown[]) => unknown).call(this, data, from, 60, at);
    } as never);
    await writeAll(pieces, 2, 3);
    vi.restoreAllMocks();
    expect(await found(pieces)).toEqual([1]);
    expect(statSync(files(".data")[0] as string).size).toBe(100);
    expect(await found(await shelf())).toEqual([1]);
  });

  test("half of what is free at most", async () => {
    vi.spyOn(fs, "statfs").mockResolvedValue({ bavail: 6, bsize: 50 } as never);
    const pieces = await shelf();
    await writeAll(pieces, 1, 2);
    expect(await found(pieces)).toEqual([1]);
  });

  test("a place that cannot be a folder, or be written: a temporary file takes the pieces", async () => {
    writeFileSync(join(place, "file"), "");
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith("reft-frozen-"));
    const pieces = await folder(1e6, join(place, "file")).shelf(shelfA);
    await writeAll(pieces, 1, 2);
    expect(await found(pieces)).toEqual([1, 2]);
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith("reft-frozen-"))).toEqual(before);
    // Whoever may do everything may write here too.
    if (process.getuid?.() === 0) return;
    chmodSync(place, 0o500);
    const closed = await shelf();
    await writeAll(closed, 1);
    expect(await found(closed)).toEqual([1]);
    chmodSync(place, 0o700);
    expect(readdirSync(place)).toEqual(["file"]);
  });
});

describe("without a folder", () => {
  const temporary = async (limit = 1e6): Promise<Pieces> => {
    vi.stubEnv(frozenFolderVariable, "");
    const made = openPieceFolder(undefined, limit);
    opened.push(made);
    expect(made.persistent).toBe(false);
    return made.shelf(shelfA);
  };

  test("pieces go with the run, and leave no file", async () => {
    vi.stubEnv("TMPDIR", place);
    const pieces = await temporary();
    await writeAll(pieces, 1, 2, 3);
    expect(await found(pieces)).toEqual([1, 2, 3]);
    expect(readdirSync(place)).toEqual([]);
    expect(await found(await temporary())).toEqual([]);
  });

  test("many at once, and the limit", async () => {
    const pieces = await temporary(280);
    await Promise.all([1, 2, 3].map((n) => pieces.write(key(n), bytes(n))));
    expect(await found(pieces)).toEqual([1, 2]);
  });

  test("and without a place for a file nothing is kept", async () => {
    for (const name of ["TMPDIR", "TEMP", "TMP"]) vi.stubEnv(name, "/nowhere/at/all");
    const pieces = await temporary();
    await writeAll(pieces, 1);
    expect(await found(pieces)).toEqual([]);
  });
});

test("disposed, it has nothing and takes nothing", async () => {
  const own = folder();
  const pieces = await own.shelf(shelfA);
  await writeAll(pieces, 1);
  await own.dispose();
  await own.dispose();
  await writeAll(pieces, 2);
  expect(await found(pieces)).toEqual([]);
  expect(await found(await shelf())).toEqual([1]);
});
