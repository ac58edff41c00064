/** The guard against slow changes that needs no clock: operations, bytes and nodes of fixed steps are what formulas say. */

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { describe, expect, test } from "vitest";
import { type Example, NO_LABEL } from "../src/data/example.js";
import type { WeightLocation } from "../src/files/checkpoint.js";
import type { Sizes } from "../src/graph/cost.js";
import { topological } from "../src/graph/tensor.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { toOnnx } from "../src/onnx/emit.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { cutStep, type Outputs, wholeStep } from "../src/train/loss-graph.js";
import { stepCost, stepSizes } from "../src/train/step-cost.js";

interface Shape {
  readonly model_type: string;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly vocab_size: number;
}

/** SmolLM2-135M's shape. */
const llama135m: Shape = {
  model_type: "llama",
  hidden_size: 576,
  intermediate_size: 1536,
  num_hidden_layers: 30,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  vocab_size: 49152,
};
/** Qwen2.5-0.5B's shape. */
const qwen494m: Shape = {
  model_type: "qwen2",
  hidden_size: 896,
  intermediate_size: 4864,
  num_hidden_layers: 24,
  num_attention_heads: 14,
  num_key_value_heads: 2,
  vocab_size: 151936,
};

/** Linear layers of a block by name, [out, in, bias]. */
function linears(c: Shape): Record<string, readonly [outputs: number, inputs: number, bias: boolean]> {
  const [d, f] = [c.hidden_size, c.intermediate_size];
  const kv = (d / c.num_attention_heads) * c.num_key_value_heads;
  const bias = c.model_type === "qwen2";
  return {
    "self_attn.q_proj": [d, d, bias],
    "self_attn.k_proj": [kv, d, bias],
    "self_attn.v_proj": [kv, d, bias],
    "self_attn.o_proj": [d, d, false],
    "mlp.gate_proj": [f, d, false],
    "mlp.up_proj": [f, d, false],
    "mlp.down_proj": [d, f, false],
  };
}

/** A model that has shapes and no files: nothing is opened. */
function modelOf(c: Shape): CausalLM {
  const weights = new Map<string, WeightLocation>();
  let offset = 0;
  const put = (name: string, ...shape: number[]): void => {
    const length = 4 * shape.reduce((a, b) => a * b, 1);
    weights.set(name, { path: "/model.safetensors", offset, length, dtype: "F32", shape });
    offset += length;
  };
  put("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  put("model.norm.weight", c.hidden_size);
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    const block = `model.layers.${layer}`;
    put(`${block}.input_layernorm.weight`, c.hidden_size);
    put(`${block}.post_attention_layernorm.weight`, c.hidden_size);
    for (const [name, [outputs, inputs, bias]] of Object.entries(linears(c))) {
      put(`${block}.${name}.weight`, outputs, inputs);
      if (bias) put(`${block}.${name}.bias`, outputs);
    }
  }
  const refuse = (): Promise<never> => Promise.reject(new Error("this model has no weights to run"));
  return new CausalLM({
    id: c.model_type,
    revision: undefined,
    checkpoint: { folder: "/", config: { ...c, tie_word_embeddings: true }, generationConfig: {}, weights },
    runtime: {
      device: "none",
      open: refuse,
      allocate: () => {
        throw new Error("this model has no memory to keep anything in");
      },
      dispose: () => Promise.resolve(),
    },
  });
}

const rank = 4;

function edited(c: Shape, layers: readonly number[]): ReftModel {
  const representations = layers.map((layer) => ({
    layer,
    component: "block_output",
    intervention: new LoreftIntervention({ embedDim: c.hidden_size, lowRankDimension: rank }),
  }));
  return new ReftModel(modelOf(c), { representations });
}

function examples(count: number, prompt: number, answer: number, locations: readonly number[]): Example[] {
  const inputIds = Array.from({ length: prompt + answer }, (_, t) => t + 1);
  const labels = inputIds.map((id, t) => (t < prompt ? NO_LABEL : id));
  return Array.from({ length: count }, () => ({ inputIds, labels, promptLength: prompt, locations: [locations] }));
}

// The formulas: what a step must do, and nothing else. N = B·T rows; a multiply-add is two operations.

/** Linear layers of one block over n rows: 2·n·in·out each. */
function linearFlops(c: Shape, n: number, names: (name: string) => boolean = () => true): number {
  const used = Object.entries(linears(c)).filter(([name]) => names(name));
  return used.reduce((sum, [, [outputs, inputs]]) => sum + 2 * n * outputs * inputs, 0);
}

/** q·Kᵀ and weights·V, of T queries over `keys` keys. */
function attentionFlops(c: Shape, b: number, t: number, keys: number): number {
  return 2 * (2 * b * t * keys * c.hidden_size);
}

/** h·Wᵀ, h·R, (…)·Rᵀ forward; by R twice, by W and by the difference backward; and by h, twice, where an edit lies below. */
function editFlops(c: Shape, rows: number, below: boolean): number {
  return (3 + 4 + (below ? 2 : 0)) * 2 * rows * c.hidden_size * rank;
}

interface Passed {
  readonly forward: number;
  readonly backward: number;
  readonly edits: number;
}

/** Forward through `forward` layers and back through `backward`, the head both ways at M rows, edits of M0 rows each. */
function stepFlops(c: Shape, s: Sizes, layers: Passed): number {
  const [b, t, p, m, rows] = ["B", "T", "P", "M", "M0"].map((k) => s[k] as number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const linear = linearFlops(c, b * t);
  // What comes after the last layer's attention is made at labelled rows only, edited or not.
  const spared = linearFlops(c, b * t - m, (name) => /o_proj|mlp/.test(name));
  // Backward, cached keys and values get no gradient: one product for each forward, two where the keys are live. Attention's
  // weights are not kept: their scores, half of the forward work, are computed again.
  const again = attentionFlops(c, b, t, p + t) / 2;
  const back = linear + attentionFlops(c, b, t, p) + 2 * attentionFlops(c, b, t, t) + again;
  const head = 2 * (2 * m * c.hidden_size * c.vocab_size);
  const edits = Array.from({ length: layers.edits }, (_, i) => editFlops(c, rows, i > 0));
  const forward = layers.forward * (linear + attentionFlops(c, b, t, p + t));
  return forward + layers.backward * back - 2 * spared + head + edits.reduce((x, y) => x + y);
}

const blockBytes = (c: Shape): number =>
  4 * Object.values(linears(c)).reduce((sum, [outputs, inputs]) => sum + outputs * inputs, 0);
const biasBytes = (c: Shape): number =>
  4 * Object.values(linears(c)).reduce((sum, [outputs, , bias]) => sum + (bias ? outputs : 0), 0);

/** Each product reads its weights once: a block's and its two norms forward and backward, biases forward, the table for the head. */
function stepWeightBytes(c: Shape, m: number, layers: { forward: number; backward: number }): number {
  const [d, v] = [c.hidden_size, c.vocab_size];
  const block = blockBytes(c) + 4 * 2 * d;
  const head = 2 * (4 * d * v + 4 * d) + 4 * m * d;
  return layers.forward * (block + biasBytes(c)) + layers.backward * block + head;
}

const shapes = [
  { name: "135M llama", shape: llama135m },
  { name: "494M qwen2", shape: qwen494m },
];

describe.each(shapes)(
  "$name, ten examples of 96 + 32 tokens, one edit at the last prompt token of a middle layer",
  ({ shape }) => {
    const layers = shape.num_hidden_layers;
    const middle = layers / 2;
    const above = layers - 1 - middle;
    const d = shape.hidden_size;
    const reft = edited(shape, [middle]);
    const data = examples(10, 96, 32, [95]);
    const whole = stepSizes(reft, data, { frozenCache: false });
    const live = stepSizes(reft, data, { frozenCache: true });

    test("only the tokens from the edited one to the last that predicts are live", () => {
      expect(whole).toEqual({ B: 10, T: 127, P: 0, M: 320, M0: 10 });
      expect(live).toEqual({ B: 10, T: 32, P: 95, M: 320, M0: 10 });
    });

    test("a whole step goes forward through all layers and back through those above the edit", () => {
      const { step, frozen } = stepCost(reft, whole, { frozenCache: false });
      expect(step.flops).toBe(stepFlops(shape, whole, { forward: layers, backward: above, edits: 1 }));
      expect(step.weightBytes).toBe(
        stepWeightBytes(shape, 320, { forward: layers, backward: above }) + 4 * 10 * 127 * d,
      );
      expect(frozen).toBeUndefined();
    });

    // At 135M a whole step is 444.6 GFLOP, a cut one 103.3 (4.3 times less) and the frozen part 272.0, once. What could still go:
    // - of the frozen part, the live tokens in the layers above the edit (keys and values are kept of those before): 11 %;
    // - of the first layer above the edit, query, key and value of the tokens that are not edited, both ways: 0.7 % of a cut step;
    // - of the last layer, queries and attention where there is no label: nothing here, where all live tokens predict one.
    // The head takes 35 % of a cut step (36.2 GFLOP for 320 labels) and is needed both ways.
    test("a cut step goes through the layers above the edit only, over live tokens only", () => {
      const { step } = stepCost(reft, live, { frozenCache: true });
      expect(step.flops).toBe(stepFlops(shape, live, { forward: above, backward: above, edits: 1 }));
      expect(step.weightBytes).toBe(stepWeightBytes(shape, 320, { forward: above, backward: above }));
    });

    test("the frozen part is all layers forward, of the last one keys and values only, and no head", () => {
      const { frozen } = stepCost(reft, live, { frozenCache: true });
      const keysAndValues = (name: string): boolean => /[kv]_proj/.test(name);
      expect(frozen?.flops).toBe(
        (layers - 1) * (linearFlops(shape, 1270) + attentionFlops(shape, 10, 127, 127)) +
          linearFlops(shape, 1270, keysAndValues),
      );
      const kv = Object.entries(linears(shape)).flatMap(([name, [o, i, bias]]) =>
        keysAndValues(name) ? [4 * o * (i + (bias ? 1 : 0))] : [],
      );
      const block = blockBytes(shape) + biasBytes(shape) + 4 * 2 * d;
      expect(frozen?.weightBytes).toBe((layers - 1) * block + 4 * d + kv.reduce((a, b) => a + b) + 4 * 1270 * d);
    });

    test("a step fetches the loss and the gradients, and is fed live rows, cached keys and values, and numbers of tokens", () => {
      const parameters = 4 * (2 * d * rank + rank);
      const whole4 = stepCost(reft, whole, { frozenCache: false }).step;
      const cut = stepCost(reft, live, { frozenCache: true }).step;
      expect([whole4.fetchedBytes, cut.fetchedBytes]).toEqual([4 + parameters, 4 + parameters]);
      const [n, kv] = [10 * 32, (2 * (shape.num_key_value_heads * d)) / shape.num_attention_heads];
      // Numbers of tokens: 8 bytes a labelled row and a label, 4 its weight, 8 an edited row; 4 a position and a key's position.
      const labelled = 320 * (8 + 8 + 4) + 10 * 8;
      expect(whole4.fedBytes).toBe(parameters + labelled + 10 * 127 * (8 + 4 + 4));
      const frozenBytes = 4 * n * d + 4 * above * 10 * 95 * kv;
      expect(cut.fedBytes).toBe(parameters + labelled + frozenBytes + 4 * n + 4 * 10 * 127);
    });

    test("no gradient is computed below the edit, nothing at all in a cut step", () => {
      const both = Array.from({ length: layers }, (_, layer) => (layer > middle ? 2 : 1));
      expect(uses(wholeStep(reft, { training: true }), layers)).toEqual(both);
      const cut = cutStep(reft, { training: true });
      for (const graph of [cut.step, cut.stepWithoutPast])
        expect(uses(graph, layers)).toEqual(both.map((n) => (n === 2 ? 2 : 0)));
      expect(uses(wholeStep(reft, { training: false }), layers)).toEqual(both.map(() => 1));
      expect(uses(cutStep(reft, { training: false }).step, layers)).toEqual(both.map((n) => n - 1));
    });

    test("the frozen part stops where nothing looks back: keys and values of the last layer, or the cut itself", () => {
      const cut = cutStep(reft, { training: true });
      const last = weightsRead(cut.frozen).filter((name) => name.includes(`layers.${layers - 1}.`));
      expect(last.map((name) => name.replace(/^.*\d\.|\.(weight|bias)$/g, "")).sort()).toEqual(
        ["input_layernorm", "self_attn.k_proj", "self_attn.v_proj"].flatMap((name) =>
          linears(shape)[name]?.[2] === true ? [name, name] : [name],
        ),
      );
      expect(weightsRead(cut.frozen)).not.toContain("model.norm.weight");
      expect(uses(cut.frozenWithoutPast, layers)).toEqual(
        Array.from({ length: layers }, (_, l) => (l <= middle ? 1 : 0)),
      );
      for (const graph of [cut.frozen, cut.frozenWithoutPast]) expect(logitsMade(graph)).toEqual([]);
    });

    test("logits exist for labelled rows only, each once, and never of the whole vocabulary", () => {
      const cut = cutStep(reft, { training: true });
      for (const graph of [wholeStep(reft, { training: true }), cut.step, cut.stepWithoutPast]) {
        const made = logitsMade(graph);
        expect(made.map(({ rows }) => rows)).toEqual(made.map(() => "M"));
        expect(made.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(shape.vocab_size);
        const wide = topological(Object.values(graph)).filter((t) => t.shape.includes(shape.vocab_size));
        expect(wide.flatMap(({ source }) => (source.kind === "op" ? [source.op.name] : []))).toEqual([]);
      }
    });
  },
);

describe.each(shapes)("$name, 8 × 128 tokens, every layer edited at f7+l7", ({ shape }) => {
  const layers = shape.num_hidden_layers;
  const reft = edited(
    shape,
    Array.from({ length: layers }, (_, layer) => layer),
  );
  const places = Array.from({ length: 14 }, (_, i) => (i < 7 ? i : 96 - 14 + i));
  const data = examples(8, 96, 32, places);
  const sizes = stepSizes(reft, data, { frozenCache: true });

  test("only the first layer is kept: all tokens are live, and back through all layers but that one", () => {
    const { step, frozen } = stepCost(reft, sizes, { frozenCache: true });
    const whole = stepCost(reft, sizes, { frozenCache: false }).step;
    expect(sizes).toMatchObject({ B: 8, T: 127, P: 0, M: 256, M0: 112 });
    const counts = { backward: layers - 1, edits: layers };
    expect(whole.flops).toBe(stepFlops(shape, sizes, { forward: layers, ...counts }));
    expect(step.flops).toBe(stepFlops(shape, sizes, { forward: layers - 1, ...counts }));
    expect(step.flops + (frozen?.flops ?? 0)).toBe(whole.flops);
  });

  test("edited rows are written once an edit: forward the edited, backward their gradients in place of what comes round the edit", () => {
    const scatters = topological(Object.values(wholeStep(reft, { training: true }))).flatMap(
      ({ source, shape: [n] }) =>
        source.kind === "op" && source.op.name.startsWith("Scatter") && n === "B*T" ? [source.op.name] : [],
    );
    // The last edit is among the labelled rows; below the lowest nothing is wanted; one says which rows are labelled.
    expect(scatters.filter((name) => name === "ScatterRows")).toHaveLength(layers - 1 + (layers - 2) + 1);
    // Gradients of the labelled rows: by the last attention, and by what goes round it.
    expect(scatters.filter((name) => name === "ScatterAdd")).toHaveLength(2);
  });
});

/** No formula gives these: they were recorded. A change that adds nodes or copies of hidden states to a layer says so here. */
describe("a llama layer above the edit", () => {
  const one = [3, 4].map((num_hidden_layers) => edited({ ...llama135m, num_hidden_layers }, [0])) as [
    ReftModel,
    ReftModel,
  ];
  /** What a fourth layer adds. */
  const added = (count: (reft: ReftModel) => number): number => count(one[1]) - count(one[0]);

  test("is so many ONNX nodes", () => {
    expect(added((reft) => onnxNodes(cutStep(reft, { training: true }).stepWithoutPast))).toBe(126);
    expect(added((reft) => onnxNodes(cutStep(reft, { training: true }).step))).toBe(145);
    expect(added((reft) => onnxNodes(cutStep(reft, { training: false }).step))).toBe(37);
  });

  const heads = llama135m.num_attention_heads;
  test.each([
    [1, 1],
    [4, 1],
    [32, 95],
    [127, 1],
  ])("writes so many floats for %d live tokens after %d", (t, p) => {
    const floats = (past: number): number =>
      added((reft) => stepCost(reft, { B: 1, M: 1, M0: 1, T: t, P: past }, { frozenCache: true }).step.writtenBytes) /
      4;
    // A live token, and a pair of tokens in each head; of the past nothing is copied.
    expect(floats(0)).toBe(43_863 * t + 10 * heads * t * t);
    expect(floats(p)).toBe(46_167 * t + heads * (19 * t * t + 18 * t * p));
  });
});

/** For each layer, in how many matrix products a weight of its MLP takes part: once forward, once more where gradients flow. */
function uses(outputs: Outputs, layers: number): number[] {
  const counts = new Array<number>(layers).fill(0);
  for (const t of topological(Object.values(outputs)))
    if (t.source.kind === "op" && t.source.op.flops !== undefined)
      for (const { source } of t.inputs) {
        const layer = source.kind === "weight" && /layers\.(\d+)\.mlp\.up_proj/.exec(source.name)?.[1];
        if (typeof layer === "string") counts[Number(layer)] = (counts[Number(layer)] as number) + 1;
      }
  return counts;
}

function weightsRead(outputs: Outputs): string[] {
  return topological(Object.values(outputs)).flatMap((t) => (t.source.kind === "weight" ? [t.source.name] : []));
}

/** Products with rows of the head: how many rows they are for, and of how many tokens of the vocabulary they make logits. */
function logitsMade(outputs: Outputs): { rows: string; tokens: number }[] {
  return topological(Object.values(outputs)).flatMap(({ source, shape }) => {
    if (source.kind !== "op" || source.op.name !== "Gemm") return [];
    const { transB } = source.attributes as { transB?: boolean };
    const [, head] = source.inputs;
    const ofHead = head?.source.kind === "weight" && /^(lm_head|model\.embed_tokens)\.weight/.test(head.source.name);
    return transB === true && ofHead ? [{ rows: String(shape[0]), tokens: Number(shape[1]) }] : [];
  });
}

/** Nodes of the emitted graph: ModelProto.graph (7) has them as GraphProto.node (1). */
function onnxNodes(outputs: Outputs): number {
  const parts = (bytes: Uint8Array, field: number): Uint8Array[] => {
    const reader = new BinaryReader(bytes);
    const found: Uint8Array[] = [];
    while (reader.pos < reader.len) {
      const [no, type] = reader.tag();
      if (no === field) found.push(reader.bytes());
      else reader.skip(type, no);
    }
    return found;
  };
  return parts(toOnnx(outputs).bytes, 7).flatMap((graph) => parts(graph, 1)).length;
}

describe("long texts attend in four stretches, each to the keys up to its own end", () => {
  const reft = edited(llama135m, [15]);
  const data = examples(2, 480, 40, [479]);
  // Of 16 squares of scores those on the diagonal and below it.
  const seen = (b: number, t: number): number => (10 / 16) * attentionFlops(llama135m, b, t, t);
  const every = (b: number, t: number): number => attentionFlops(llama135m, b, t, t);

  test("in a step, forward and back", () => {
    const sizes = stepSizes(reft, data, { frozenCache: false });
    // The last token predicts nothing; 519 are padded to a multiple of four.
    expect(sizes).toMatchObject({ B: 2, T: 520, P: 0, M: 80, M0: 2 });
    const { step } = stepCost(reft, sizes, { frozenCache: false });
    const whole = stepFlops(llama135m, sizes, { forward: 30, backward: 14, edits: 1 });
    // Above the edit by both factors of both products, and the scores again.
    expect(step.flops).toBe(whole - (30 + 2.5 * 14) * (every(2, 520) - seen(2, 520)));
  });

  test("in what is done once", () => {
    const sizes = stepSizes(reft, data, { frozenCache: true });
    expect(sizes).toMatchObject({ B: 2, T: 40, P: 479 });
    const { frozen } = stepCost(reft, sizes, { frozenCache: true });
    const names = (name: string): boolean => name === "self_attn.k_proj" || name === "self_attn.v_proj";
    const rows = 2 * 520;
    const linears = 29 * linearFlops(llama135m, rows) + linearFlops(llama135m, rows, names);
    expect(frozen?.flops).toBe(linears + 29 * seen(2, 520));
  });
});
