/** A file is told from others that look like it. */

import {
  closeSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fileIdentity } from "./file-identity-node.js";

let folder: string;
let path: string;
const size = 300_000;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reft-identity-"));
  path = join(folder, "weights");
  writeFileSync(path, Buffer.alloc(size, 7));
  utimesSync(path, 1000, 1000);
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Writes bytes into the file as it is, and sets its time back. */
function overwrite(at: number, length: number): void {
  const file = openSync(path, "r+");
  writeSync(file, Buffer.alloc(length, 8), 0, length, at);
  closeSync(file);
  utimesSync(path, 1000, 1000);
}

test("stays the same as long as the file does, wherever it lies", async () => {
  const before = await fileIdentity(path);
  expect(await fileIdentity(path)).toBe(before);
  const copy = join(folder, "copy");
  writeFileSync(copy, Buffer.alloc(size, 7));
  utimesSync(copy, 1000, 1000);
  expect(await fileIdentity(copy)).toBe(before);
});

test.each([
  ["its beginning", 0, 1],
  ["its end", size - 1, 1],
  ["its middle, as an update of all weights does", 150_000, 5000],
])("changes with %s, though size and time are the same", async (_, at, length) => {
  const before = await fileIdentity(path);
  overwrite(at, length);
  expect(statSync(path).size).toBe(size);
  expect(await fileIdentity(path)).not.toBe(before);
});

test("changes with the time alone, and with the size", async () => {
  const before = await fileIdentity(path);
  utimesSync(path, 1000, 1001);
  const later = await fileIdentity(path);
  expect(later).not.toBe(before);
  truncateSync(path, size - 1);
  utimesSync(path, 1000, 1001);
  expect(await fileIdentity(path)).not.toBe(later);
});

test("small and empty files have one; a file that is not there has none", async () => {
  for (const length of [0, 1, 5000]) {
    writeFileSync(path, Buffer.alloc(length, 1));
    expect(await fileIdentity(path)).toMatch(new RegExp(`^${length} \\d+ [0-9a-f]{64}$`));
  }
  rmSync(path);
  await expect(fileIdentity(path)).rejects.toThrow("ENOENT");
});
