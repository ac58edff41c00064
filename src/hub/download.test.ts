/** Downloads from a hub on this machine: progress, resuming, checks, faults, several processes at once. */
import { existsSync, mkdirSync, readFileSync, renameSync, utimesSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { etagOf, sha256 } from "../../test/hub-server.js";
import {
  blobs,
  cacheDir,
  downloads,
  failure,
  hub,
  interruptAfter,
  needed,
  parts,
  resolveIt,
  tiny,
  useTinyHub,
  weights,
  weightsBlob,
} from "../../test/tiny-hub.js";

useTinyHub();

describe("downloads", () => {
  test("report bytes for every file, and ask for bytes as they are", async () => {
    const done = new Map<string, number>();
    await resolveIt("owner/tiny", {
      onProgress: (p) => {
        expect(p.done).toBeGreaterThanOrEqual(done.get(p.file) ?? 0);
        expect(p.done).toBeLessThanOrEqual(p.total);
        done.set(p.file, p.done);
      },
    });
    expect([...done.keys()].sort()).toEqual(needed);
    expect(done.get("model.safetensors")).toBe(weights.length);
    const encodings = hub.requests.filter(({ path }) => !path.startsWith("/api/")).map(({ encoding }) => encoding);
    expect(new Set(encodings)).toEqual(new Set(["identity"]));
  });

  test("follow the hub's redirect of a renamed model", async () => {
    expect((await resolveIt("tiny-old")).folder).toContain("models--tiny-old");
  });

  test("resume a broken connection at the byte where it broke", async () => {
    hub.faults.push({ path: "model.safetensors", kind: "drop", value: 70_000, times: 1 });
    await resolveIt();
    expect(downloads("model.safetensors")).toEqual([undefined, undefined, "bytes=70000-", "bytes=70000-"]);
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
    expect(parts()).toEqual([]);
  });

  test("resume in the next run: only the rest is asked for", async () => {
    await interruptAfter(50_000);
    expect(parts()).toEqual([`${sha256(weights)}.reft.incomplete`]);
    expect(existsSync(join(cacheDir, "models--owner--tiny", "snapshots"))).toBe(false);
    const seen: number[] = [];
    await resolveIt("owner/tiny", { onProgress: ({ file, done }) => file === "model.safetensors" && seen.push(done) });
    expect(downloads("model.safetensors")).toEqual(["bytes=50000-", "bytes=50000-"]);
    expect(seen[0]).toBe(50_000);
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
    expect(parts()).toEqual([]);
  });

  test("start over where the server knows no ranges", async () => {
    await interruptAfter(50_000);
    hub.faults.push({ path: "model.safetensors", kind: "noRange" });
    await resolveIt();
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
  });

  test("start over when another range comes than was asked for", async () => {
    await interruptAfter(50_000);
    hub.faults.push({ path: "model.safetensors", kind: "otherRange", times: 1 });
    await resolveIt();
    expect(downloads("model.safetensors").at(-1)).toBeUndefined();
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
  });

  test("a part larger than the file is thrown away; one of full size is checked, not trusted", async () => {
    mkdirSync(blobs(), { recursive: true });
    writeFileSync(`${weightsBlob()}.reft.incomplete`, new Uint8Array(weights.length + 1));
    await resolveIt();
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
    await rm(weightsBlob());
    writeFileSync(`${weightsBlob()}.reft.incomplete`, weights);
    hub.requests.length = 0;
    await resolveIt();
    expect(downloads("model.safetensors")).toEqual([]);
    await rm(weightsBlob());
    writeFileSync(`${weightsBlob()}.reft.incomplete`, new Uint8Array(weights.length));
    expect(await failure(resolveIt())).toContain("model.safetensors of owner/tiny as downloaded has hash");
    expect(parts()).toEqual([]);
    await resolveIt();
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
  });

  test.each(["model.safetensors", "config.json"])("wrong bytes in %s are refused and removed", async (path) => {
    hub.faults.push({ path, kind: "wrongBytes", times: 1 });
    const message = await failure(resolveIt());
    expect(message).toMatch(
      /as downloaded has hash [0-9a-f]+, but the hub lists [0-9a-f]+: it was removed. Run the same/,
    );
    expect(existsSync(join(blobs(), etagOf(tiny, path)))).toBe(false);
    expect(parts()).toEqual([]);
    await resolveIt();
  });

  test.each(["wrongSize", "tooLong"] as const)("a file of the wrong length is refused: %s", async (kind) => {
    hub.faults.push({ path: "model.safetensors", kind });
    expect(await failure(resolveIt())).toMatch(/model.safetensors of owner\/tiny as downloaded has .* the hub lists/);
    expect(existsSync(weightsBlob())).toBe(false);
    expect(parts()).toEqual([]);
  });

  test("survive passing errors of the server, and tell of lasting ones", async () => {
    hub.faults.push({ path: "api", kind: "status", value: 503, times: 2 });
    hub.faults.push({ path: "model.safetensors", kind: "status", value: 429, times: 3 });
    await resolveIt();
    await rm(weightsBlob());
    hub.faults.push({ path: "model.safetensors", kind: "status", value: 500 });
    expect(await failure(resolveIt())).toContain(
      "HUB failed 4 times: status 500 (asked for owner/tiny). Check the network",
    );
  });

  test("a silent connection is given up and resumed", async () => {
    hub.faults.push({ path: "model.safetensors", kind: "stall", value: 30_000, times: 1 });
    await resolveIt("owner/tiny", { patience: { pauses: [1], stall: 300, poll: 10 } });
    expect(downloads("model.safetensors").at(-1)).toBe("bytes=30000-");
  });

  test("stop at the signal, keep what has arrived, and go on from there", async () => {
    hub.faults.push({ path: "model.safetensors", kind: "stall", value: 30_000, times: 1 });
    const controller = new AbortController();
    const reason = new Error("enough");
    const work = resolveIt("owner/tiny", {
      signal: controller.signal,
      onProgress: ({ file, done }) => file === "model.safetensors" && done === 30_000 && controller.abort(reason),
    });
    await expect(work).rejects.toBe(reason);
    expect(parts()).toEqual([`${sha256(weights)}.reft.incomplete`]);
    hub.requests.length = 0;
    await resolveIt();
    expect(downloads("model.safetensors")).toEqual(["bytes=30000-", "bytes=30000-"]);
    await expect(resolveIt("owner/tiny", { signal: AbortSignal.abort(reason), refresh: true })).rejects.toBe(reason);
  });

  test("two at once download a file once", async () => {
    hub.faults.push({ path: "model.safetensors", kind: "drop", value: 10_000, times: 1 });
    const results = await Promise.all([resolveIt(), resolveIt(), resolveIt()]);
    expect(new Set(results.map(({ folder }) => folder)).size).toBe(1);
    expect(downloads("model.safetensors")).toEqual([undefined, undefined, "bytes=10000-", "bytes=10000-"]);
    expect(new Uint8Array(readFileSync(weightsBlob()))).toEqual(weights);
    expect(parts()).toEqual([]);
  });

  test("take over from a dead process, wait for a living one, leave Python's files alone", async () => {
    await interruptAfter(50_000);
    const half = join(blobs(), parts()[0]!);
    let living = "";
    hub.onFile = (path) => {
      if (path === "model.safetensors") living = parts().find((name) => name.includes(`-${process.pid}-`)) ?? living;
    };
    await resolveIt();
    expect(living).toMatch(
      new RegExp(`^${sha256(weights)}\\.reft-[0-9a-f]{8}-${process.pid}-[0-9a-f]{8}\\.incomplete$`),
    );
    // Its owner has died: no process has this number.
    await rm(weightsBlob());
    writeFileSync(join(blobs(), living.replace(`-${process.pid}-`, "-999999999-")), weights.subarray(0, 60_000));
    writeFileSync(half.replace(".reft.", "."), "python's");
    hub.requests.length = 0;
    await resolveIt();
    expect(downloads("model.safetensors")).toEqual(["bytes=60000-", "bytes=60000-"]);
    expect(parts()).toEqual([`${sha256(weights)}.incomplete`]);
    // Its owner lives: we wait until the blob arrives, and ask for nothing.
    await rm(weightsBlob());
    writeFileSync(join(blobs(), living), weights.subarray(0, 60_000));
    hub.requests.length = 0;
    const waiting = resolveIt();
    await vi.waitFor(() => expect(hub.requests.length).toBeGreaterThanOrEqual(3));
    await new Promise((done) => setTimeout(done, 50));
    writeFileSync(join(blobs(), living), weights);
    renameSync(join(blobs(), living), weightsBlob());
    await waiting;
    expect(downloads("model.safetensors")).toEqual([]);
    // On another machine, and silent for long: taken over too.
    await rm(weightsBlob());
    const foreign = join(blobs(), `${sha256(weights)}.reft-00000000-1-abcdef01.incomplete`);
    writeFileSync(foreign, weights.subarray(0, 80_000));
    utimesSync(foreign, new Date(0), new Date(0));
    hub.requests.length = 0;
    await resolveIt();
    expect(downloads("model.safetensors")).toEqual(["bytes=80000-", "bytes=80000-"]);
  });
});
