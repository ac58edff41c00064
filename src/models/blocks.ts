/** Parts that families share: linear layers, embeddings, norms, the Llama block. */

import { times } from "../graph/dim.js";
import { scalar, type Tensor } from "../graph/tensor.js";
import {
  activations,
  add,
  blockLinear,
  gather,
  gemm,
  mul,
  recomputedByRows,
  reshape,
  rmsNormalization,
  rotary,
} from "../ops/index.js";
import { attend, causalMasks, type KeyValues, maskGroups, splitHeads, tapProjections } from "./attention.js";
import type { ModulePaths } from "./components.js";
import type { ModelConfig } from "./config.js";
import { type Decoded, type LiveTokens, runBlock } from "./family.js";
import { ropeAngles } from "./rope.js";
import type { Tap, TapPlace } from "./site.js";
import type { MatrixPlace, Weights } from "./weights.js";

/** x·Wᵀ (+ b): W [out, in] as torch's Linear stores it. The bias is used where the checkpoint has one. */
export function linear(layer: Weights, x: Tensor, inputs: number, outputs: number): Tensor {
  return product(layer, x, { inputs, outputs });
}

/** The product with a layer's `weight`, from its codes where there are some, and its `bias` where it has one. */
export function product(layer: Weights, x: Tensor, place: MatrixPlace): Tensor {
  const { inputs, outputs, transposed = false } = place;
  const bias = layer.has("bias") ? [layer.get("bias", [outputs])] : [];
  const codes = layer.quantised("weight", place);
  if (codes !== undefined) return bias.reduce(add, blockLinear(x, codes));
  const w = layer.get("weight", transposed ? [inputs, outputs] : [outputs, inputs]);
  return gemm(x, w, ...bias, { transB: !transposed });
}

/** Rows of an embedding table for ids [B, T], flat [B·T, D]. */
export function embed(table: Tensor, ids: Tensor): Tensor {
  return reshape(gather(table, ids, {}), { shape: [times(ids.dim(0), ids.dim(1)), table.dim(1)] });
}

export function rmsNorm(layer: Weights, x: Tensor, c: ModelConfig): Tensor {
  return rmsNormalization(x, layer.get("weight", [c.hiddenSize]), { epsilon: c.eps });
}

/** W_down(act(W_gate x) ⊙ W_up x). For the derivative act is computed again: kept, it would be a fifth of all that is. */
function gatedMlp(layer: Weights, x: Tensor, c: ModelConfig, tap: TapPlace): Tensor {
  const [d, f] = [c.hiddenSize, c.intermediateSize];
  const act = activations[c.activation];
  const [gate, up] = [linear(layer.under("gate_proj"), x, d, f), linear(layer.under("up_proj"), x, d, f)];
  const active = act(gate);
  const tapped = tap("mlp_activation", active);
  const gated = (...[g, u]: readonly Tensor[]): Tensor => mul(act(g as Tensor), u as Tensor);
  const inner = tapped === active ? recomputedByRows(gated, gate, up) : mul(tapped, up);
  return linear(layer.under("down_proj"), inner, f, d);
}

/** The modules of Llama and its relatives. */
export const llamaPaths: ModulePaths = {
  blocks: "model.layers",
  below: {
    block_input: ["input"],
    block_output: ["output"],
    attention_input: ["self_attn.input", "input_layernorm.output"],
    query_output: ["self_attn.q_proj.output"],
    key_output: ["self_attn.k_proj.output"],
    value_output: ["self_attn.v_proj.output"],
    attention_value_output: ["self_attn.o_proj.input"],
    attention_output: ["self_attn.output", "self_attn.o_proj.output"],
    mlp_input: ["mlp.input", "post_attention_layernorm.output"],
    mlp_activation: ["mlp.act_fn.output"],
    mlp_output: ["mlp.output", "mlp.down_proj.output"],
  },
};

/** What distinguishes one relative of Llama from another. */
export interface LlamaLike {
  /** Applied to each head of queries and keys before rotation. */
  readonly headNorm?: (layer: Weights, x: Tensor, name: "q_norm" | "k_norm", c: ModelConfig) => Tensor;
}

/** The forward pass of Llama and its relatives: pre-norm blocks of rotary attention and a gated MLP. */
export function llamaForward(
  model: Weights,
  c: ModelConfig,
  tokens: LiveTokens,
  tap: Tap,
  own: LlamaLike = {},
): Decoded {
  const { positions, keyPositions, headParts = 1, queryParts: parts } = tokens;
  const [b, t] = [positions.dim(0), positions.dim(1)];
  if (c.rope === undefined) throw new Error("internal: a Llama-like config without rope");
  const angles = ropeAngles(c.rope, positions);
  // Queries are scaled as they are turned: a product with a few angles rather than with every query.
  const scale = scalar(c.headDim ** -0.5);
  const scaled = { cos: mul(angles.cos, scale), sin: mul(angles.sin, scale) };
  const groups = maskGroups(c, headParts);
  const masksOf = (window: number | undefined): Tensor[] =>
    causalMasks(positions, keyPositions, { groups, window, parts });
  const masks = new Map([...new Set(c.windows)].map((w) => [w, masksOf(w)]));
  const live: KeyValues[] = [];

  const attention = (layer: Weights, x: Tensor, index: number, at: TapPlace): Tensor => {
    const project = (name: string, heads: number): Tensor =>
      linear(layer.under(`${name}_proj`), x, c.hiddenSize, heads * c.headDim);
    const rows = tapProjections(at, project("q", c.heads), project("k", c.kvHeads), project("v", c.kvHeads));
    const norm = own.headNorm ?? ((_l, h) => h);
    const turned = (h: Tensor, heads: number, name: "q_norm" | "k_norm", by: typeof angles): Tensor =>
      rotary(norm(layer, splitHeads(h, b, t, heads, c.headDim), name, c), by.cos, by.sin);
    const q = turned(rows[0], c.heads, "q_norm", scaled);
    const k = turned(rows[1], c.kvHeads, "k_norm", angles);
    const v = splitHeads(rows[2], b, t, c.kvHeads, c.headDim);
    const seen = masks.get(c.windows[index]) as Tensor[];
    const result = attend(q, k, v, seen, c, { past: tokens.past?.[index], headParts });
    live[index] ??= result.live;
    const mixed = at("attention_value_output", result.rows);
    return linear(layer.under("o_proj"), mixed, c.heads * c.headDim, c.hiddenSize);
  };

  const runLayer = (layer: number, input: Tensor): Tensor => {
    const block = model.under(`layers.${layer}`);
    const at: TapPlace = (component, rows) => tap({ layer, component }, rows);
    let h = at("block_input", input);
    const attended = at("attention_input", rmsNorm(block.under("input_layernorm"), h, c));
    h = add(h, at("attention_output", attention(block.under("self_attn"), attended, layer, at)));
    const fed = at("mlp_input", rmsNorm(block.under("post_attention_layernorm"), h, c));
    h = add(h, at("mlp_output", gatedMlp(block.under("mlp"), fed, c, at)));
    return at("block_output", h);
  };

  let h = embed(model.get("embed_tokens.weight", [c.vocabSize, c.hiddenSize]), tokens.ids);
  for (let layer = 0; layer < c.layers; layer++) h = runBlock(tokens, (x) => runLayer(layer, x), h);
  return { hidden: rmsNorm(model.under("norm"), h, c), live };
}

/** `lm_head.weight`, or the embedding table where the head is tied. */
export function llamaHead(model: Weights, c: ModelConfig): Tensor {
  const name = c.tiedHead ? "model.embed_tokens.weight" : "lm_head.weight";
  return model.get(name, [c.vocabSize, c.hiddenSize]);
}
