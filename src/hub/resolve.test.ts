/** Finding models against a hub on this machine: cache layout, offline use, shards and refusals. */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { defaultCommit, etagOf, gitSha1 } from "../../test/hub-server.js";
import {
  blobs,
  cacheDir,
  downloads,
  failure,
  hub,
  needed,
  resolveIt,
  tiny,
  token,
  useTinyHub,
  weights,
  weightsBlob,
} from "../../test/tiny-hub.js";
import { openCheckpoint } from "../files/checkpoint-node.js";
import { encodeSafetensors } from "../files/safetensors.js";

useTinyHub();

describe("a model on this machine", () => {
  test("a folder is itself, and needs no hub", async () => {
    expect(await resolveIt(cacheDir)).toEqual({ id: cacheDir, revision: undefined, folder: cacheDir });
    expect(await failure(resolveIt(cacheDir, { revision: "v1" }))).toContain(
      "CACHE is a folder on this machine: it has no",
    );
    writeFileSync(join(cacheDir, "file"), "");
    expect(await failure(resolveIt(join(cacheDir, "file")))).toBe(
      "CACHE/file is a file. Give the folder with config.json and model.safetensors in it.",
    );
    expect(hub.requests).toEqual([]);
  });

  test("the built-in model lies in this package", async () => {
    const { folder, revision } = await resolveIt("builtin");
    expect(existsSync(join(dirname(dirname(folder)), "package.json"))).toBe(true);
    expect(folder.endsWith(join("models", "builtin"))).toBe(true);
    expect(revision).toBeUndefined();
  });

  test.each(["./none", "../none", "/none/at/all", "~/none", "a/b/c", "none/", "C:\\none", "a\\b"])(
    "%s looks like a folder, and does not exist",
    async (path) => {
      expect(await failure(resolveIt(path))).toContain(
        `The folder ${path} does not exist. Check the path, or give a hub`,
      );
      expect(hub.requests).toEqual([]);
    },
  );

  test.each(["", "a b", "-x/y", "own--er/x", "o/x..y", "ö/x", "o/x?y", `o/${"x".repeat(97)}`])(
    "%j is no hub id",
    async (id) => {
      expect(await failure(resolveIt(id))).toContain("is neither a folder here nor a hub id");
      expect(hub.requests).toEqual([]);
    },
  );

  test.each(["../x", "/x", "a//b", "a/../b", "", ".hidden", "a b"])("%j is no revision", async (revision) => {
    expect(await failure(resolveIt("owner/tiny", { revision }))).toContain("is not a revision");
    expect(hub.requests).toEqual([]);
  });
});

describe("the cache", () => {
  test("is laid out as Python's, holds the needed files only, and opens as a checkpoint", async () => {
    const source = await resolveIt();
    const repo = join(cacheDir, "models--owner--tiny");
    expect(source).toEqual({
      id: "owner/tiny",
      revision: defaultCommit,
      folder: join(repo, "snapshots", defaultCommit),
    });
    expect(readdirSync(source.folder).sort()).toEqual(needed);
    expect(readFileSync(join(repo, "refs", "main"), "utf8")).toBe(defaultCommit);
    for (const name of needed) {
      expect(readlinkSync(join(source.folder, name))).toBe(join("..", "..", "blobs", etagOf(tiny, name)));
    }
    // special_tokens_map.json and two more are the same bytes, so one blob; none is half-downloaded.
    const expected = new Set(needed.map((name) => etagOf(tiny, name)));
    expect(new Set(readdirSync(blobs()))).toEqual(expected);
    const { weights: found, config } = await openCheckpoint(source.folder);
    expect(config).toEqual({ model_type: "llama" });
    expect(found.get("w")!.path).toBe(weightsBlob());
  });

  test("once whole, is used without a request: by branch, tag and commit", async () => {
    const { folder } = await resolveIt();
    await resolveIt("owner/tiny", { revision: "v1.0" });
    await resolveIt("owner/tiny", { revision: "refs/pr/1" });
    hub.requests.length = 0;
    for (const revision of ["main", "v1.0", "refs/pr/1", defaultCommit]) {
      expect((await resolveIt("owner/tiny", { revision })).folder).toBe(folder);
    }
    expect(hub.requests).toEqual([]);
  });

  test("as Python writes it is used without a request, offline too", async () => {
    const repo = join(cacheDir, "models--gpt2");
    const snapshot = join(repo, "snapshots", defaultCommit);
    mkdirSync(join(repo, "blobs"), { recursive: true });
    mkdirSync(join(repo, "refs"));
    mkdirSync(snapshot, { recursive: true });
    for (const name of ["config.json", "model.safetensors", "tokenizer.json"]) {
      writeFileSync(join(repo, "blobs", gitSha1(name)), name);
      symlinkSync(`../../blobs/${gitSha1(name)}`, join(snapshot, name));
    }
    writeFileSync(join(repo, "refs", "main"), defaultCommit);
    expect(await resolveIt("gpt2")).toEqual({ id: "gpt2", revision: defaultCommit, folder: snapshot });
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect((await resolveIt("gpt2", { refresh: true })).folder).toBe(snapshot);
    expect(hub.requests).toEqual([]);
  });

  test("refresh follows a branch that has moved, and downloads only what changed", async () => {
    const old = await resolveIt();
    const commit = "f".repeat(40);
    hub.repos[0] = { ...tiny, commit, files: { ...tiny.files, "config.json": '{"model_type":"qwen2"}' } };
    hub.requests.length = 0;
    expect((await resolveIt()).revision).toBe(defaultCommit);
    expect(hub.requests).toEqual([]);
    const moved = await resolveIt("owner/tiny", { refresh: true });
    expect(moved.revision).toBe(commit);
    expect(hub.requests.filter(({ path }) => path.includes("/resolve/")).length).toBe(1);
    expect((await openCheckpoint(moved.folder)).config).toEqual({ model_type: "qwen2" });
    expect((await openCheckpoint(old.folder)).config).toEqual({ model_type: "llama" });
    expect((await resolveIt()).revision).toBe(commit);
  });

  test("holds copies where links are switched off", async () => {
    vi.stubEnv("HF_HUB_DISABLE_SYMLINKS", "1");
    const { folder } = await resolveIt();
    expect(() => readlinkSync(join(folder, "model.safetensors"))).toThrow();
    expect(new Uint8Array(readFileSync(join(folder, "model.safetensors")))).toEqual(weights);
    expect(readdirSync(folder).sort()).toEqual(needed);
  });

  test("a link without its blob, a missing tokenizer or shard make it fetch again what is missing", async () => {
    const { folder } = await resolveIt();
    renameSync(weightsBlob(), join(cacheDir, "away"));
    await rm(join(folder, "tokenizer.json"));
    hub.requests.length = 0;
    await resolveIt();
    expect(downloads("model.safetensors").length).toBe(2); // the hub and, redirected, the second origin
    expect(downloads("tokenizer.json").length).toBe(0); // its blob is there
    expect(existsSync(join(folder, "tokenizer.json"))).toBe(true);
  });

  test("a blob of the wrong size is not taken for the file", async () => {
    mkdirSync(blobs(), { recursive: true });
    writeFileSync(weightsBlob(), weights.subarray(0, 1000));
    const { folder } = await resolveIt();
    expect(new Uint8Array(readFileSync(join(folder, "model.safetensors")))).toEqual(weights);
  });

  test("a really full disk is said, and nothing looks whole (where a small file system can be mounted)", async (context) => {
    if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=100k", "tmpfs", cacheDir]).status !== 0) return context.skip();
    try {
      expect(await failure(resolveIt())).toMatch(
        /^Cannot download model.safetensors of owner.tiny.*the disk is full \(ENOSPC/,
      );
      expect(existsSync(weightsBlob())).toBe(false);
      expect(existsSync(join(cacheDir, "models--owner--tiny", "snapshots"))).toBe(false);
      spawnSync("mount", ["-o", "remount,size=2m", cacheDir]);
      hub.requests.length = 0;
      await resolveIt();
      expect(downloads("model.safetensors")[0]).toMatch(/^bytes=\d+-$/);
    } finally {
      spawnSync("umount", [cacheDir]);
    }
  });

  test("what cannot be written is said", async () => {
    writeFileSync(join(cacheDir, "file"), "");
    const message = await failure(resolveIt("owner/tiny", { cacheDir: join(cacheDir, "file") }));
    expect(message).toMatch(/^Cannot download \S+ of owner\/tiny to CACHE\/file\/.*: a part of that path is a file/);
  });
});

describe("without a network", () => {
  test("HF_HUB_OFFLINE and nothing in the cache", async () => {
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    expect(await failure(resolveIt())).toContain(
      'owner/tiny (revision "main") is not in the cache CACHE, and HF_HUB_OFF',
    );
    expect(hub.requests).toEqual([]);
  });

  test("nobody listens there: said at once; but a model that lacks only its tokenizer is used", async () => {
    const { folder } = await resolveIt();
    await rm(join(folder, "tokenizer.json"));
    await hub.close();
    expect((await resolveIt()).folder).toBe(folder);
    expect((await resolveIt("owner/tiny", { refresh: true })).folder).toBe(folder);
    const patience = { pauses: [1e6] }; // a retry would hang
    expect(await failure(resolveIt("owner/other", { patience }))).toMatch(
      /^HUB cannot be reached: .*ECONNREFUSED.* Check/,
    );
  });

  test("a page that is no hub", async () => {
    hub.faults.push({ path: "api", kind: "html" });
    expect(await failure(resolveIt())).toContain("HUB does not answer like a Hugging Face hub. Check HF_ENDPOINT, and");
  });
});

describe("shards", () => {
  const shard = (name: string): Uint8Array => encodeSafetensors({ [name]: { shape: [1], data: new Float32Array(1) } });
  const map = { a: "model-1-of-2.safetensors", b: "model-2-of-2.safetensors" };
  const index = JSON.stringify({ weight_map: map });
  const files = { "config.json": "{}", "tokenizer.json": "{}", "model.safetensors.index.json": index };

  test("all that the index names are downloaded, nothing else", async () => {
    const extra = { "other.safetensors": shard("c") };
    hub.repos.push({ id: "owner/big", files: { ...files, [map.a]: shard("a"), [map.b]: shard("b"), ...extra } });
    const { folder } = await resolveIt("owner/big");
    expect([...(await openCheckpoint(folder)).weights.keys()]).toEqual(["a", "b"]);
    expect(existsSync(join(folder, "other.safetensors"))).toBe(false);
    await rm(join(folder, map.b));
    hub.requests.length = 0;
    await resolveIt("owner/big");
    expect(hub.requests.length).toBeGreaterThan(0);
    expect(existsSync(join(folder, map.b))).toBe(true);
  });

  test("a shard that the repository lacks is named, and an index that leads elsewhere refused", async () => {
    hub.repos.push({ id: "owner/big", files: { ...files, [map.a]: shard("a") } });
    expect(await failure(resolveIt("owner/big"))).toContain(
      "owner/big lacks model-2-of-2.safetensors, which its index",
    );
    const evil = JSON.stringify({ weight_map: { a: "../../../x.safetensors" } });
    hub.repos.push({ id: "owner/evil", files: { ...files, "model.safetensors.index.json": evil } });
    expect(await failure(resolveIt("owner/evil"))).toContain("which is not a .safetensors file of its folder");
  });
});

describe("refusals", () => {
  test("no such model, no such revision", async () => {
    expect(await failure(resolveIt("owner/none"))).toBe(
      'owner/none (revision "main") does not exist at HUB, or is private. Check the spelling; ' +
        "for a private one set HF_TOKEN. If you meant a folder: there is none called owner/none here.",
    );
    expect(await failure(resolveIt("owner/tiny", { revision: "v9" }))).toContain(
      'owner/tiny has no revision "v9". Choose',
    );
  });

  test("a repository without what a model needs", async () => {
    hub.repos.push({ id: "o/gguf", files: { "x.gguf": "" } });
    expect(await failure(resolveIt("o/gguf"))).toContain("o/gguf has no config.json: it is not a transformers model");
    hub.repos.push({ id: "o/bin", files: { "config.json": "{}", "pytorch_model.bin": "" } });
    expect(await failure(resolveIt("o/bin"))).toContain(
      "has no model.safetensors, only pytorch_model.bin, a format that",
    );
  });

  test("a gated model says what to do; with a token it works, and the second origin never sees the token", async () => {
    hub.repos.push({ ...tiny, id: "owner/gated", gated: true });
    expect(await failure(resolveIt("owner/gated"))).toBe(
      "owner/gated is gated: its authors ask you to accept a licence first (status 401). " +
        "Accept it at HUB/owner/gated, then set HF_TOKEN to a token of your account that may read it.",
    );
    vi.stubEnv("HF_TOKEN", "wrong");
    expect(await failure(resolveIt("owner/gated"))).toContain("The hub does not accept your token for owner/gated");
    vi.stubEnv("HF_TOKEN", token);
    hub.requests.length = 0;
    await resolveIt("owner/gated");
    const seen = (origin: string) => hub.requests.filter((r) => r.origin === origin).map((r) => r.authorization);
    expect(new Set(seen("hub"))).toEqual(new Set([`Bearer ${token}`]));
    expect(seen("cdn")).toEqual([undefined]);
  });

  test("a listing whose hashes are no file names", async () => {
    const odd: typeof fetch = async (input, init) => {
      const response = await fetch(input, init);
      if (!String(input).includes("/tree/")) return response;
      return Response.json([{ type: "file", path: "config.json", size: 2, oid: "../../../../evil" }]);
    };
    expect(await failure(resolveIt("owner/tiny", { fetch: odd }))).toContain(
      '"config.json" with hash "../../../../evil"',
    );
  });

  test("endless redirects, and one from https to http", async () => {
    const to = (location: string): typeof fetch => {
      return async () => new Response(null, { status: 302, headers: { location } });
    };
    expect(await failure(resolveIt("owner/tiny", { fetch: to("/x") }))).toContain("redirects more than 10 times");
    const options = { fetch: to("http://hub.invalid/x"), endpoint: "https://hub.invalid" };
    expect(await failure(resolveIt("owner/tiny", options))).toContain(
      "redirects to the unprotected http://hub.invalid",
    );
  });
});
