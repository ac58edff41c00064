/** BERT-like encoders (arXiv 1810.04805): every token sees every other; each part is added, then normed. */

import { z } from "zod";
import { constant, scalar, type Tensor } from "../graph/tensor.js";
import { activations, add, gather, layerNormalization, lessOrEqual, mul, reshape, where } from "../ops/index.js";
import { attend, type KeyValues, masked, splitHeads, tapProjections } from "./attention.js";
import { embed, linear } from "./blocks.js";
import type { ModulePaths } from "./components.js";
import { activationName, headWidth, type ModelConfig, parseConfig, type RawConfig } from "./config.js";
import { type Decoded, type LiveTokens, runBlock } from "./family.js";
import type { Tap, TapPlace } from "./site.js";
import type { Weights } from "./weights.js";

export interface EncoderConfig extends ModelConfig {
  /** The row of the position table that the first token takes; the rows before it are never used. */
  readonly firstPosition: number;
  /** Kinds of segments: the two texts of a pair, in BERT. */
  readonly tokenTypes: number;
}

const size = z.number().int().positive();
const schema = z.object({
  hidden_size: size,
  num_hidden_layers: size,
  num_attention_heads: size,
  intermediate_size: size,
  vocab_size: size,
  max_position_embeddings: size,
  type_vocab_size: size,
  layer_norm_eps: z.number().positive().default(1e-12),
  hidden_act: activationName.default("gelu"),
  position_embedding_type: z.literal("absolute").nullish(),
  is_decoder: z.literal(false).nullish(),
});

/** The config of BERT and its relatives. */
export function parseEncoder(raw: RawConfig, modelType: string, firstPosition: number): EncoderConfig {
  const c = parseConfig(schema, raw);
  const headDim = headWidth("hidden_size", c.hidden_size, "num_attention_heads", c.num_attention_heads);
  return {
    modelType,
    hiddenSize: c.hidden_size,
    layers: c.num_hidden_layers,
    heads: c.num_attention_heads,
    kvHeads: c.num_attention_heads,
    headDim,
    intermediateSize: c.intermediate_size,
    vocabSize: c.vocab_size,
    eps: c.layer_norm_eps,
    activation: c.hidden_act,
    maxPositionEmbeddings: c.max_position_embeddings - firstPosition,
    tiedHead: true,
    windows: Array.from({ length: c.num_hidden_layers }, () => undefined),
    rope: undefined,
    firstPosition,
    tokenTypes: c.type_vocab_size,
  };
}

/**
 * The modules of an encoder. As in pyvene a component is a whole module's input or output. Here a module's output is taken after
 * its residual sum and norm, and a part's input is also what goes past it: `mlp_output` equals `block_output`,
 * `attention_input` equals `block_input`, and `mlp_input` equals `attention_output` (pyvene writes into that very tensor).
 */
export function encoderPaths(model: string): ModulePaths {
  return {
    blocks: `${model}.encoder.layer`,
    below: {
      block_input: ["input"],
      block_output: ["output"],
      attention_input: ["attention.input"],
      query_output: ["attention.self.query.output"],
      key_output: ["attention.self.key.output"],
      value_output: ["attention.self.value.output"],
      attention_value_output: ["attention.output.input", "attention.output.dense.input"],
      attention_output: ["attention.output", "attention.output.output", "attention.output.LayerNorm.output"],
      mlp_input: ["intermediate.input", "intermediate.dense.input"],
      mlp_activation: ["intermediate.output", "output.input", "output.dense.input"],
      mlp_output: ["output.output", "output.LayerNorm.output"],
    },
  };
}

/** Checkpoints from before 2019, bert-base-uncased among them, call a norm's weight and bias gamma and beta. */
function norm(layer: Weights, x: Tensor, c: ModelConfig): Tensor {
  const [weight, bias] = layer.has("gamma") ? ["gamma", "beta"] : ["weight", "bias"];
  const [w, b] = [layer.get(weight, [c.hiddenSize]), layer.get(bias, [c.hiddenSize])];
  return layerNormalization(x, w, b, { epsilon: c.eps });
}

/** LN(word + token type + position), rows [B·T, D] */
function embeddings(layer: Weights, c: EncoderConfig, { ids, positions, tokenTypes }: LiveTokens): Tensor {
  const table = (name: string, rows: number): Tensor => layer.get(`${name}_embeddings.weight`, [rows, c.hiddenSize]);
  const types = table("token_type", c.tokenTypes);
  const type =
    tokenTypes === undefined ? gather(types, constant(BigInt64Array.of(0n), [1]), {}) : embed(types, tokenTypes);
  const at = c.firstPosition === 0 ? positions : add(positions, constant(Int32Array.of(c.firstPosition), []));
  const position = embed(table("position", c.maxPositionEmbeddings + c.firstPosition), at);
  return norm(layer.under("LayerNorm"), add(add(embed(table("word", c.vocabSize), ids), type), position), c);
}

/** The mask [B, 1, 1, T]: padding's key position is beyond the last that a token can have. */
function paddingMask(keyPositions: Tensor, c: ModelConfig): Tensor {
  const seen = lessOrEqual(keyPositions, constant(Int32Array.of(c.maxPositionEmbeddings), []));
  const shape = [keyPositions.dim(0), 1, 1, keyPositions.dim(1)];
  return reshape(where(seen, scalar(0), scalar(masked)), { shape });
}

/** The forward pass of BERT and its relatives. There is no past: a token's state depends on those after it. */
export function encoderForward(model: Weights, c: EncoderConfig, tokens: LiveTokens, tap: Tap): Decoded {
  if (tokens.past !== undefined) throw new Error("internal: an encoder was given a past");
  const [b, t] = [tokens.positions.dim(0), tokens.positions.dim(1)];
  const [d, f] = [c.hiddenSize, c.intermediateSize];
  const mask = paddingMask(tokens.keyPositions, c);
  const scale = scalar(c.headDim ** -0.5);
  const live: KeyValues[] = [];

  const attention = (layer: Weights, x: Tensor, index: number, at: TapPlace): Tensor => {
    const project = (name: string): Tensor => linear(layer.under(`self.${name}`), x, d, d);
    const rows = tapProjections(at, project("query"), project("key"), project("value"));
    const [q, k, v] = rows.map((r) => splitHeads(r, b, t, c.heads, c.headDim)) as [Tensor, Tensor, Tensor];
    const result = attend(mul(q, scale), k, v, [mask], c, { headParts: tokens.headParts });
    live[index] ??= result.live;
    const mixed = linear(layer.under("output.dense"), at("attention_value_output", result.rows), d, d);
    return norm(layer.under("output.LayerNorm"), add(mixed, x), c);
  };
  const mlp = (layer: Weights, x: Tensor, at: TapPlace): Tensor => {
    const inner = activations[c.activation](linear(layer.under("intermediate.dense"), x, d, f));
    const outer = linear(layer.under("output.dense"), at("mlp_activation", inner), f, d);
    return norm(layer.under("output.LayerNorm"), add(outer, x), c);
  };

  const runLayer = (layer: number, input: Tensor): Tensor => {
    const block = model.under(`encoder.layer.${layer}`);
    const at: TapPlace = (component, rows) => tap({ layer, component }, rows);
    const h = at("attention_input", at("block_input", input));
    const attended = at("attention_output", attention(block.under("attention"), h, layer, at));
    return at("block_output", at("mlp_output", mlp(block, at("mlp_input", attended), at)));
  };

  let h = embeddings(model.under("embeddings"), c, tokens);
  for (let layer = 0; layer < c.layers; layer++) h = runBlock(tokens, (x) => runLayer(layer, x), h);
  return { hidden: h, live };
}
