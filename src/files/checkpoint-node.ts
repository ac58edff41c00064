/** Opens a checkpoint folder: reads configurations and safetensors headers, never the weights themselves. */
import { type FileHandle, open, readdir, readFile, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../errors.js";
import {
  type Checkpoint,
  parseJsonObject,
  parseWeightIndex,
  type WeightLocation,
  weightsFile,
  weightsIndexFile,
} from "./checkpoint.js";
import { parseSafetensorsHeader, type SafetensorsHeader, safetensorsHeaderLength } from "./safetensors.js";
import { errorCode, fileError } from "./write-node.js";

/** Real ones have a few kilobytes; a larger one is an attack on the parser. */
const maxConfigBytes = 10_000_000;
/** About 100 bytes a tensor: enough for the largest mixture-of-experts checkpoints with some 300,000 tensors. */
const maxIndexBytes = 50_000_000;

/**
 * Opens a checkpoint: a folder with config.json and model.safetensors, or its index and shards.
 *
 * @throws UserError naming the file (and tensor) that is missing, truncated or malformed.
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const files = await listFolder(folder);
  if (!files.includes("config.json")) throw missingConfig(folder, files);
  const config = await readJson(folder, "config.json");
  const generationConfig = files.includes("generation_config.json")
    ? await readJson(folder, "generation_config.json")
    : {};
  let weights: ReadonlyMap<string, WeightLocation>;
  if (files.includes(weightsFile)) weights = await openShard(join(folder, weightsFile));
  else if (files.includes(weightsIndexFile)) weights = await openShards(folder, files);
  else throw missingWeights(folder, files);
  return { folder, config, generationConfig, weights };
}

async function listFolder(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") {
      throw new UserError(`The folder ${folder} does not exist.`, "Check the path.", { cause: error });
    }
    if (errorCode(error) === "ENOTDIR") {
      throw new UserError(`${folder} is a file.`, "Give the folder with config.json and model.safetensors in it.", {
        cause: error,
      });
    }
    throw fileError(error, `open the folder ${folder}`);
  }
}

function list(files: readonly string[]): string {
  if (files.length === 0) return "It is empty.";
  return `It holds ${files.slice(0, 6).join(", ")}${files.length > 6 ? ` and ${files.length - 6} more` : ""}.`;
}

function missingConfig(folder: string, files: readonly string[]): UserError {
  const adapter = files.find((name) => name === "reft_config.json" || name === "adapter_config.json");
  if (adapter !== undefined) {
    return new UserError(
      `${folder} holds an adapter (${adapter}), not a model.`,
      "Give the adapter's base model here, and load the adapter on top of it.",
    );
  }
  return new UserError(
    `${folder} has no config.json. ${list(files)}`,
    "Give a model's folder in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.",
  );
}

function missingWeights(folder: string, files: readonly string[]): UserError {
  const pickle = files.find((name) => /^pytorch_model.*\.bin/.test(name));
  if (pickle !== undefined) {
    return new UserError(
      `${folder} has its weights as ${pickle} only, a format that can run code; safetensors are needed.`,
      `Convert it with Python: AutoModelForCausalLM.from_pretrained("${folder}").save_pretrained("new-folder").`,
    );
  }
  return new UserError(
    `${folder} has neither ${weightsFile} nor ${weightsIndexFile}. ${list(files)}`,
    "Download the model again, or give its hub id.",
  );
}

/** Reads a small JSON file of the folder, capped because it may come from a stranger. */
async function readJson(folder: string, file: string): Promise<Record<string, unknown>> {
  return parseJsonObject(await readText(join(folder, file), maxConfigBytes), join(folder, file));
}

async function readText(path: string, cap: number): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > cap) {
      throw new UserError(`${path} has ${size} bytes; at most ${cap} are read.`, "Is it the right file?");
    }
    return await readFile(path, "utf8");
  } catch (error) {
    throw fileError(error, `read ${path}`);
  }
}

async function openShards(folder: string, files: readonly string[]): Promise<Map<string, WeightLocation>> {
  const indexPath = join(folder, weightsIndexFile);
  const shards = parseWeightIndex(await readText(indexPath, maxIndexBytes), indexPath);
  const missing = [...shards.keys()].filter((shard) => !files.includes(shard)).sort();
  if (missing.length > 0) {
    throw new UserError(
      `${folder} lacks ${missing.length} of its ${shards.size} weight files: ${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ", …" : ""}.`,
      "Download them into that folder, or give the model's hub id.",
    );
  }
  const weights = new Map<string, WeightLocation>();
  for (const [shard, tensors] of shards) {
    const present = await openShard(join(folder, shard));
    for (const tensor of tensors) {
      const location = present.get(tensor);
      if (location === undefined) {
        throw new UserError(
          `${indexPath} places tensor ${JSON.stringify(tensor)} in ${shard}, which does not hold it.`,
          "Index and shards are of different versions: download the model again.",
        );
      }
      weights.set(tensor, location);
    }
  }
  return weights;
}

/** Where the tensors of one safetensors file are. Throws UserError for what is no such file, or is damaged. */
export async function openShard(file: string): Promise<Map<string, WeightLocation>> {
  try {
    // Resolved, because in the hub's cache a file is a link, and links cannot be mapped by a relative location.
    const path = await realpath(file);
    const handle = await open(path, "r");
    try {
      const weights = new Map<string, WeightLocation>();
      for (const [tensor, { dtype, shape, begin, end }] of (await readHeader(handle, file)).tensors) {
        weights.set(tensor, { path, offset: begin, length: end - begin, dtype, shape });
      }
      return weights;
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fileError(error, `read ${file}`);
  }
}

async function readHeader(handle: FileHandle, file: string): Promise<SafetensorsHeader> {
  const { size } = await handle.stat();
  const start = await readStart(handle, Math.min(8, size));
  const length = 8 + safetensorsHeaderLength(start, size, file);
  return parseSafetensorsHeader(await readStart(handle, length), size, file);
}

/** The file's first bytes; fewer if the file has been cut meanwhile. */
async function readStart(handle: FileHandle, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const { bytesRead } = await handle.read(bytes, at, length - at, at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return bytes.subarray(0, at);
}
