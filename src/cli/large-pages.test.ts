/** Who asks for large pages, and when asking changes nothing. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { environmentFor, largePagesOnRequest } from "./large-pages.js";

describe("large pages", () => {
  const env = { HOME: "here" };

  test("are asked for by the commands that run a model, the rest of the environment kept", () => {
    for (const command of ["train", "eval", "generate", "chat", "classify", "demo"]) {
      const wanted = environmentFor([command, "--model", "builtin"], env, () => true);
      expect(wanted).toEqual({ HOME: "here", GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" });
    }
    for (const argv of [[], ["--help"], ["info"], ["pull", "train"]])
      expect(environmentFor(argv, env, () => true)).toBeUndefined();
  });

  test("are left alone where tunables are set, and where asking changes nothing", () => {
    for (const tunables of ["", "glibc.malloc.check=1", "glibc.malloc.hugetlb=1"])
      expect(environmentFor(["train"], { GLIBC_TUNABLES: tunables }, () => true)).toBeUndefined();
    expect(environmentFor(["train"], env, () => false)).toBeUndefined();
  });

  test("the system's file says whether they are given on request", () => {
    const folder = mkdtempSync(join(tmpdir(), "reft-pages-"));
    try {
      const file = join(folder, "enabled");
      for (const [text, answer] of [
        ["always [madvise] never\n", true],
        ["[always] madvise never\n", false],
        ["always madvise [never]\n", false],
      ] as const) {
        writeFileSync(file, text);
        expect(largePagesOnRequest(file)).toBe(answer);
      }
      expect(largePagesOnRequest(join(folder, "none"))).toBe(false);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
