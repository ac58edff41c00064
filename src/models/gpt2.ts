/** GPT-2: layer norms, learned positions, one matrix for query, key and value, weights stored [in, out]. */

import { z } from "zod";
import { scalar, type Tensor } from "../graph/tensor.js";
import { activations, add, layerNormalization, mul, slice } from "../ops/index.js";
import { attend, causalMasks, type KeyValues, splitHeads, tapProjections } from "./attention.js";
import { embed, product } from "./blocks.js";
import { scoreHead } from "./classifier-heads.js";
import { activationName, headWidth, type ModelConfig, parseConfig } from "./config.js";
import { type Family, runBlock } from "./family.js";
import type { TapPlace } from "./site.js";
import type { Weights } from "./weights.js";

const size = z.number().int().positive();
const schema = z.object({
  vocab_size: size.default(50257),
  n_positions: size.default(1024),
  n_embd: size.default(768),
  n_layer: size.default(12),
  n_head: size.default(12),
  n_inner: size.nullish(),
  activation_function: activationName.default("gelu_new"),
  layer_norm_epsilon: z.number().positive().default(1e-5),
  tie_word_embeddings: z.boolean().default(true),
  scale_attn_weights: z.boolean().default(true),
  scale_attn_by_inverse_layer_idx: z.boolean().default(false),
  add_cross_attention: z.literal(false).default(false),
});

interface Gpt2Config extends ModelConfig {
  readonly scale: (layer: number) => number;
}

function parse(raw: Readonly<Record<string, unknown>>): Gpt2Config {
  const c = parseConfig(schema, raw);
  const headDim = headWidth("n_embd", c.n_embd, "n_head", c.n_head);
  return {
    modelType: "gpt2",
    hiddenSize: c.n_embd,
    layers: c.n_layer,
    heads: c.n_head,
    kvHeads: c.n_head,
    headDim,
    intermediateSize: c.n_inner ?? 4 * c.n_embd,
    vocabSize: c.vocab_size,
    eps: c.layer_norm_epsilon,
    activation: c.activation_function,
    maxPositionEmbeddings: c.n_positions,
    tiedHead: c.tie_word_embeddings,
    windows: Array.from({ length: c.n_layer }, () => undefined),
    rope: undefined,
    scale: (layer) =>
      (c.scale_attn_weights ? headDim ** -0.5 : 1) / (c.scale_attn_by_inverse_layer_idx ? layer + 1 : 1),
  };
}

/** x·W + b: W [in, out] */
function conv1d(layer: Weights, x: Tensor, inputs: number, outputs: number): Tensor {
  return product(layer, x, { inputs, outputs, transposed: true });
}

function norm(layer: Weights, x: Tensor, c: ModelConfig): Tensor {
  return layerNormalization(x, layer.get("weight", [c.hiddenSize]), layer.get("bias", [c.hiddenSize]), {
    epsilon: c.eps,
  });
}

/** Checkpoints saved from the bare model have no "transformer." before their names. */
function body(model: Weights): Weights {
  return model.has("transformer.wte.weight") ? model.under("transformer") : model;
}

export const gpt2: Family = {
  parse,

  paths: {
    blocks: "transformer.h",
    below: {
      block_input: ["input"],
      block_output: ["output"],
      attention_input: ["attn.input", "ln_1.output"],
      // Three parts of the output of attn.c_attn: no path names one alone.
      query_output: [],
      key_output: [],
      value_output: [],
      attention_value_output: ["attn.c_proj.input"],
      attention_output: ["attn.output", "attn.c_proj.output", "attn.resid_dropout.output"],
      mlp_input: ["mlp.input", "ln_2.output"],
      mlp_activation: ["mlp.act.output", "mlp.c_proj.input"],
      mlp_output: ["mlp.output", "mlp.c_proj.output", "mlp.dropout.output"],
    },
  },

  forward: (root, config, tokens, tap) => {
    const c = config as Gpt2Config;
    const model = body(root);
    const d = c.hiddenSize;
    const [b, t] = [tokens.positions.dim(0), tokens.positions.dim(1)];
    const shape = { groups: 1, window: undefined, parts: tokens.queryParts };
    const masks = causalMasks(tokens.positions, tokens.keyPositions, shape);
    const live: KeyValues[] = [];

    const attention = (layer: Weights, x: Tensor, index: number, at: TapPlace): Tensor => {
      const qkv = conv1d(layer.under("c_attn"), x, d, 3 * d);
      const part = (n: number): Tensor => slice(qkv, { axis: 1, start: n * d, end: (n + 1) * d });
      const rows = tapProjections(at, part(0), part(1), part(2));
      const [q, k, v] = rows.map((r) => splitHeads(r, b, t, c.heads, c.headDim)) as [Tensor, Tensor, Tensor];
      const how = { past: tokens.past?.[index], headParts: tokens.headParts };
      const result = attend(mul(q, scalar(c.scale(index))), k, v, masks, c, how);
      live[index] ??= result.live;
      return conv1d(layer.under("c_proj"), at("attention_value_output", result.rows), d, d);
    };
    const mlp = (layer: Weights, x: Tensor, at: TapPlace): Tensor => {
      const inner = activations[c.activation](conv1d(layer.under("c_fc"), x, d, c.intermediateSize));
      return conv1d(layer.under("c_proj"), at("mlp_activation", inner), c.intermediateSize, d);
    };

    let h = add(
      embed(model.get("wte.weight", [c.vocabSize, d]), tokens.ids),
      embed(model.get("wpe.weight", [c.maxPositionEmbeddings, d]), tokens.positions),
    );
    const runLayer = (layer: number, input: Tensor): Tensor => {
      const block = model.under(`h.${layer}`);
      const at: TapPlace = (component, rows) => tap({ layer, component }, rows);
      let h = at("block_input", input);
      const attended = at("attention_input", norm(block.under("ln_1"), h, c));
      h = add(h, at("attention_output", attention(block.under("attn"), attended, layer, at)));
      const fed = at("mlp_input", norm(block.under("ln_2"), h, c));
      h = add(h, at("mlp_output", mlp(block.under("mlp"), fed, at)));
      return at("block_output", h);
    };
    for (let layer = 0; layer < c.layers; layer++) h = runBlock(tokens, (x) => runLayer(layer, x), h);
    return { hidden: norm(model.under("ln_f"), h, c), live };
  },

  classifier: scoreHead,

  head: (model, c) =>
    c.tiedHead
      ? body(model).get("wte.weight", [c.vocabSize, c.hiddenSize])
      : model.get("lm_head.weight", [c.vocabSize, c.hiddenSize]),
};
