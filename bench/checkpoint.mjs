// Checkpoints of random weights in the shape of real models, written once into the system's temporary folder.

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../dist/errors.js";

const prefix = "reft-bench-";

/** Shapes by name; sizes as in the models' own config.json. */
export const shapes = {
  // Of no model: to see that a command works.
  tiny: {
    model_type: "llama",
    hidden_size: 64,
    intermediate_size: 128,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 512,
    tie_word_embeddings: true,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: 2048,
    hidden_act: "silu",
    architectures: ["LlamaForCausalLM"],
    bos_token_id: 1,
    eos_token_id: 2,
  },
  "135m": {
    model_type: "llama",
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    vocab_size: 49152,
    tie_word_embeddings: true,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: 8192,
    hidden_act: "silu",
    architectures: ["LlamaForCausalLM"],
    bos_token_id: 1,
    eos_token_id: 2,
  },
  "494m": {
    model_type: "qwen2",
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    vocab_size: 151936,
    tie_word_embeddings: true,
    rms_norm_eps: 1e-6,
    rope_theta: 1000000,
    max_position_embeddings: 32768,
    hidden_act: "silu",
    architectures: ["Qwen2ForCausalLM"],
    bos_token_id: 1,
    eos_token_id: 2,
  },
  "1.1b": {
    model_type: "llama",
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 22,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    vocab_size: 32000,
    tie_word_embeddings: false,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: 2048,
    hidden_act: "silu",
    architectures: ["LlamaForCausalLM"],
    bos_token_id: 1,
    eos_token_id: 2,
  },
  "7b": {
    model_type: "llama",
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    vocab_size: 32000,
    tie_word_embeddings: false,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    max_position_embeddings: 4096,
    hidden_act: "silu",
    architectures: ["LlamaForCausalLM"],
    bos_token_id: 1,
    eos_token_id: 2,
  },
};

/** Names and shapes of every weight of a Llama-like config. */
function weightsOf(c) {
  const d = c.hidden_size;
  const f = c.intermediate_size;
  const kv = (d / c.num_attention_heads) * c.num_key_value_heads;
  const list = [
    ["model.embed_tokens.weight", [c.vocab_size, d]],
    ["model.norm.weight", [d]],
  ];
  if (!c.tie_word_embeddings) list.push(["lm_head.weight", [c.vocab_size, d]]);
  for (let i = 0; i < c.num_hidden_layers; i++) {
    const at = (name) => `model.layers.${i}.${name}`;
    for (const [name, out, inn] of [
      ["q", d, d],
      ["k", kv, d],
      ["v", kv, d],
      ["o", d, d],
    ]) {
      list.push([at(`self_attn.${name}_proj.weight`), [out, inn]]);
      if (c.model_type === "qwen2" && name !== "o") list.push([at(`self_attn.${name}_proj.bias`), [out]]);
    }
    for (const [name, out, inn] of [
      ["gate", f, d],
      ["up", f, d],
      ["down", d, f],
    ])
      list.push([at(`mlp.${name}_proj.weight`), [out, inn]]);
    list.push([at("input_layernorm.weight"), [d]], [at("post_attention_layernorm.weight"), [d]]);
  }
  return list;
}

/** The config of a shape, with sizes replaced where `overrides` names them. */
export function shapeOf(name, overrides = {}) {
  const config = shapes[name];
  if (config === undefined)
    throw new UserError(`there is no shape "${name}".`, `Shapes: ${Object.keys(shapes).join(", ")}.`);
  return { ...config, ...overrides };
}

/** Bytes of the weights' file, header aside. */
export function checkpointBytes(name, dtype, overrides = {}) {
  const numbers = weightsOf(shapeOf(name, overrides)).reduce((n, [, shape]) => n + shape.reduce((a, b) => a * b), 0);
  return numbers * (dtype === "F32" ? 4 : 2);
}

function folderOf(name, dtype, overrides) {
  const changes = Object.entries(overrides).map(([key, value]) => `-${key}-${value}`);
  return join(tmpdir(), `${prefix}${name}-${dtype.toLowerCase()}${changes.join("")}`);
}

export function checkpointExists(name, dtype, overrides = {}) {
  return existsSync(join(folderOf(name, dtype, overrides), "config.json"));
}

/** Free bytes where checkpoints are written. */
export function freeBytes() {
  const { bavail, bsize } = statfsSync(tmpdir());
  return bavail * bsize;
}

export function removeCheckpoint(name, dtype, overrides = {}) {
  rmSync(folderOf(name, dtype, overrides), { recursive: true, force: true });
}

/** Removes all that was ever written here; returns the folders' names. */
export function removeAllCheckpoints() {
  const found = readdirSync(tmpdir()).filter((name) => name.startsWith(prefix));
  for (const name of found) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  return found;
}

/** A folder with config.json and model.safetensors: normal(0, 0.02) matrices, norms of 1. dtype "F32" or "BF16". */
export function randomCheckpoint(name, dtype = "F32", overrides = {}) {
  const config = shapeOf(name, overrides);
  const folder = folderOf(name, dtype, overrides);
  if (existsSync(join(folder, "config.json"))) return folder;
  const size = checkpointBytes(name, dtype, overrides);
  if (size > freeBytes())
    throw new UserError(
      `the ${name} checkpoint takes ${Math.ceil(size / 1e9)} GB, ${tmpdir()} has ${Math.floor(freeBytes() / 1e9)} GB free.`,
      "Free some, or name another folder in TMPDIR.",
    );
  mkdirSync(folder, { recursive: true });
  const bytes = dtype === "F32" ? 4 : 2;
  const header = {};
  let offset = 0;
  const weights = weightsOf(config);
  for (const [weight, shape] of weights) {
    const end = offset + shape.reduce((a, b) => a * b) * bytes;
    header[weight] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  let text = JSON.stringify(header);
  text += " ".repeat((8 - (text.length % 8)) % 8);
  const file = openSync(join(folder, "model.safetensors"), "w");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeSync(file, length);
  writeSync(file, text);
  // One block of normal numbers, written again and again from shifting places: speed does not depend on the values.
  const count = 1 << 20;
  const pool = encode(normals(count, 0.02), dtype);
  let at = 0;
  for (const [, shape] of weights) {
    let left = shape.reduce((a, b) => a * b);
    if (shape.length === 1) {
      writeSync(file, encode(new Float32Array(left).fill(1), dtype));
      continue;
    }
    while (left > 0) {
      at = (at + 7919) % (count / 2);
      const n = Math.min(left, count - at);
      writeSync(file, pool, at * bytes, n * bytes);
      left -= n;
    }
  }
  closeSync(file);
  // The config comes last: a folder with one is whole.
  writeFileSync(
    join(folder, "config.tmp"),
    JSON.stringify({ ...config, torch_dtype: dtype === "F32" ? "float32" : "bfloat16" }),
  );
  renameSync(join(folder, "config.tmp"), join(folder, "config.json"));
  return folder;
}

function encode(values, dtype) {
  if (dtype === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return new Uint8Array(Uint16Array.from(bits, (b) => (b + 0x8000) >>> 16).buffer);
}

function normals(n, deviation) {
  let state = 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 1) / 4294967297;
  };
  return Float32Array.from(
    { length: n },
    () => deviation * Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
}
