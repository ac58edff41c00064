/** The code that the docs show is run as it stands. */

import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test, vi } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
let folder: string;
let before: string;

beforeAll(() => {
  before = process.cwd();
  folder = mkdtempSync(join(tmpdir(), "reft-readme-"));
  process.chdir(folder);
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true });
});

/** Runs the first TypeScript block of a page, and gives back what it printed. */
async function run(page: string): Promise<unknown[]> {
  const [, code] = /```ts\n([\s\S]*?)```/.exec(readFileSync(join(root, page), "utf8")) as unknown as [string, string];
  const file = join(folder, `${page.replaceAll("/", "-")}.ts`);
  writeFileSync(file, code.replace('from "reft"', `from ${JSON.stringify(join(root, "src/index.ts"))}`));
  const printed = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    await import(/* @vite-ignore */ file);
    return printed.mock.calls.map(([first]) => first as unknown);
  } finally {
    printed.mockRestore();
  }
}

test("an edit of one's own, in docs/edits.md", async () => {
  expect(await run("docs/edits.md")).toEqual([true, "ScaleIntervention"]);
});

test("a classifier of questions, in docs/classification.md", async () => {
  const [counts, metrics, told] = await run("docs/classification.md");
  expect(counts).toMatch(/^trainable intervention params: 2,056 \|\| trainable model params: 384\n/);
  expect(metrics).toEqual({ accuracy: 1, f1: 1, f1Macro: 1, matthews: 1 });
  expect(told).toEqual(["place", "animal"]);
});

test("a model in 4 bits, in docs/quantisation.md", async () => {
  vi.stubEnv("REFT_CACHE", folder);
  try {
    const [answer] = await run("docs/quantisation.md");
    expect(answer).toMatch(/pup/i);
  } finally {
    vi.unstubAllEnvs();
  }
});

test("preferences, in docs/preference.md", async () => {
  expect(await run("docs/preference.md")).toEqual(["🐑 🔊 baa", 1, true]);
});

test("modes of generation and beams, in docs/generation.md", async () => {
  const [modes, ...beams] = await run("docs/generation.md");
  const { nothing, ...edited } = modes as Record<string, string[]>;
  expect(nothing?.[0]).toMatch(/goat/i);
  expect(Object.keys(edited)).toEqual(["prompt", "places", "everywhere", "generated", "window"]);
  for (const answers of Object.values(edited)) expect(answers).toHaveLength(2);
  expect(new Set(beams).size).toBe(3);
});

test("the README's seven steps", async () => {
  const lines = await run("README.md");
  expect(lines[0]).toMatch(/^trainable intervention params: 1,028 \|\| trainable model params: 0\nmodel params: /);
  const { plain, edited, loss } = lines[1] as { plain: string; edited: string; loss: number };
  expect(plain).toMatch(/sheep/i);
  expect(edited).toMatch(/🐑/u);
  expect(loss).toBeLessThan(1);
  expect(lines[2]).toBe(true);
  expect(statSync("my-reft/reft.safetensors").size).toBeLessThan(10_000);
});
