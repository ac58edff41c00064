/** A hub on this machine with one tiny model, and what tests of the cache ask about it. */
import { existsSync, readdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { UserError } from "../src/errors.js";
import { encodeSafetensors } from "../src/files/safetensors.js";
import { type ModelSource, type ResolveOptions, resolveModel } from "../src/hub/resolve.js";
import { type HubRepo, type HubServer, sha256, startHub } from "./hub-server.js";

export const token = "secret-token";
export const weights: Uint8Array = encodeSafetensors({
  w: { shape: [50_000], data: Float32Array.from({ length: 50_000 }, Math.sin) },
});
export const tiny: HubRepo = {
  id: "owner/tiny",
  refs: ["v1.0", "refs/pr/1"],
  alias: "tiny-old",
  files: {
    "README.md": "# tiny",
    "config.json": '{"model_type":"llama"}',
    "generation_config.json": "{}",
    "tokenizer.json": '{"model":{}}',
    "tokenizer_config.json": "{}",
    "special_tokens_map.json": "{}",
    "vocab.json": "{}",
    "merges.txt": "",
    "chat_template.jinja": "",
    "model.safetensors": weights,
    "consolidated.safetensors": weights,
    "pytorch_model.bin": "pickle",
    "onnx/model.onnx": "onnx",
  },
};
const names: string[] = Object.keys(tiny.files);
export const needed: string[] = [...names.slice(1, 6), "chat_template.jinja", "model.safetensors"].sort();

export let cacheDir: string;
export let hub: HubServer;

/** Gives each test of a file a hub of its own, and an empty cache. */
export function useTinyHub(): void {
  beforeEach(async () => {
    cacheDir = await mkdtemp(join(tmpdir(), "reft-hub-"));
    for (const name of ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_DISABLE_SYMLINKS"]) {
      vi.stubEnv(name, "");
    }
    vi.stubEnv("HF_HOME", join(cacheDir, "home"));
    hub = await startHub([tiny], { token });
  });

  afterEach(async () => {
    vi.unstubAllEnvs();
    await hub.close();
    await rm(cacheDir, { recursive: true, force: true });
  });
}

export function resolveIt(id = "owner/tiny", options: ResolveOptions = {}): Promise<ModelSource> {
  const patience = { pauses: [1, 1, 1], poll: 10 };
  return resolveModel(id, { cacheDir, endpoint: hub.endpoint, patience, ...options });
}

export async function failure(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(
    () => "no failure",
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  return (error as Error).message.replaceAll(hub.endpoint, "HUB").replaceAll(cacheDir, "CACHE");
}

export function blobs(id = "owner/tiny"): string {
  return join(cacheDir, `models--${id.replace("/", "--")}`, "blobs");
}

export const weightsBlob = (): string => join(blobs(), sha256(weights));

export function downloads(file: string): (string | undefined)[] {
  return hub.requests.filter(({ path }) => path.endsWith(`/${file}`)).map(({ range }) => range);
}

/** The half-downloaded files in the cache. */
export function parts(): string[] {
  return existsSync(blobs()) ? readdirSync(blobs()).filter((name) => name.includes("incomplete")) : [];
}

/** The weights' download breaks after so many bytes, until the faults are cleared. */
export async function interruptAfter(bytes: number): Promise<void> {
  hub.faults.push({ path: "model.safetensors", kind: "drop", value: bytes, times: 1 });
  hub.faults.push({ path: "model.safetensors", kind: "drop", value: 0 });
  await failure(resolveIt());
  hub.faults.length = 0;
  hub.requests.length = 0;
}
