/** Adapters from and to Python's libraries: what real pyreft wrote does the same here, and comes back in the same numbers. */

import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UserError } from "../src/errors.js";
import { fromFloats, toFloats } from "../src/files/floats.js";
import { decodeTorch, encodeTorch, type TorchTensor } from "../src/files/torch-file.js";
import { input } from "../src/graph/tensor.js";
import type { CausalLM } from "../src/models/causal-lm.js";
import { toOnnx } from "../src/onnx/emit.js";
import { gemm } from "../src/ops/index.js";
import { adapterFiles, configFile, readAdapter, weightsFile } from "../src/reft/adapter.js";
import { adapterFormat, adapterOnModel, readAnyAdapter } from "../src/reft/convert.js";
import { writeEasySteer } from "../src/reft/easysteer-files.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { type FolderReader, plainAdapter, type Said } from "../src/reft/plain-adapter.js";
import { writePyreft } from "../src/reft/pyreft-files.js";
import { keysOf } from "../src/reft/pyvene-keys.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { expectClose, golden, goldenFloats, goldenIntegers, int32, int64 } from "./support.js";
import { openTiny } from "./tiny.js";

/** One edit in float32, R recomputed from its parametrisation in doubles: largest seen 3e-7. */
const close = 2e-6;

let runtime: Runtime;
let model: CausalLM;
beforeAll(async () => {
  runtime = openNodeRuntime();
  model = await openTiny(runtime);
});
afterAll(() => runtime.dispose());

/** Linear parts in float32, though the file holds them in bfloat16. */
const wide: Said = { dtype: "float32" };

type Files = Record<string, Uint8Array | string>;

/** Files in memory as a folder. */
function folderOf(files: Files): FolderReader {
  const read = async (name: string): Promise<Uint8Array> => {
    const file = files[name];
    if (file === undefined) throw new UserError(`no ${name}`, "");
    return typeof file === "string" ? new TextEncoder().encode(file) : file;
  };
  return { name: "f", names: Object.keys(files).sort(), read };
}

/** A recorded folder. */
function recorded(name: string): Files {
  const place = golden(`files/${name}`);
  return Object.fromEntries(readdirSync(place).map((file) => [file, new Uint8Array(readFileSync(`${place}/${file}`))]));
}

const jsonOf = (file: Uint8Array | string | undefined): Record<string, unknown> =>
  JSON.parse(typeof file === "string" ? file : new TextDecoder().decode(file)) as Record<string, unknown>;

/** The folder with some fields of its config.json changed. */
function withConfig(files: Files, change: Record<string, unknown>, name = "config.json"): Files {
  return { ...files, [name]: JSON.stringify({ ...jsonOf(files[name]), ...change }) };
}

async function imported(files: Files, said: Said = {}): Promise<{ reft: ReftModel; assumed: readonly string[] }> {
  return adapterOnModel(await readAnyAdapter(folderOf(files), said), model, said);
}

/** h′ of the i-th edit. */
async function effect(
  reft: ReftModel,
  h: { shape: readonly number[]; data: Float32Array },
  i = 0,
): Promise<Float32Array> {
  const edit = reft.edits[i] as (typeof reft.edits)[number];
  const names = Object.keys(edit.intervention.parameters);
  const value = (name: string) =>
    reft.parameters.get(`${edit.weightsKey}.${name}`) as { shape: readonly number[]; value(): Float32Array };
  const tensors = Object.fromEntries(names.map((name) => [name, input(name, "float32", value(name).shape)]));
  const session = await runtime.open(toOnnx({ out: edit.intervention.edit(input("h", "float32", h.shape), tensors) }));
  const feeds = names.map((name) => [name, { shape: value(name).shape, data: value(name).value() }] as const);
  const { out } = await session.run({ ...Object.fromEntries(feeds), h });
  await session.dispose();
  return out?.data as Float32Array;
}

async function logitsOf(reft: ReftModel, ids: readonly number[], rows: readonly number[][]): Promise<Float32Array> {
  const shape = [1, ids.length];
  const tokens = {
    ids: input("ids", "int64", shape),
    positions: input("positions", "int32", shape),
    keyPositions: input("keyPositions", "int32", shape),
  };
  const { hidden } = reft.model.forward(tokens, reft.tap({ training: false }).tap);
  const session = await runtime.open(toOnnx({ logits: gemm(hidden, reft.model.head(), { transB: true }) }));
  const positions = int32(
    shape,
    ids.map((_, i) => i),
  );
  const at = Object.fromEntries(rows.map((row, i) => [`rows.${i}`, int64([row.length], row)]));
  const { logits } = await session.run({
    ids: int64(shape, ids),
    positions,
    keyPositions: positions,
    ...at,
    ...reft.feeds(),
  });
  await session.dispose();
  return logits?.data as Float32Array;
}

const classes = {
  loreft: "LoreftIntervention",
  noreft: "NoreftIntervention",
  "noreft-no-bias": "NoreftIntervention",
  consreft: "ConsreftIntervention",
  lobireft: "LobireftIntervention",
  direft: "DireftIntervention",
  nodireft: "NodireftIntervention",
};

describe.each(Object.entries(classes))("%s as pyreft saved it", (name, kind) => {
  const floats = goldenFloats(`files/${name}.safetensors`);
  const [h, output] = [floats.get("h"), floats.get("output")] as { shape: readonly number[]; data: Float32Array }[];

  test("does the same here", async () => {
    const { reft, assumed } = await imported(recorded(name), wide);
    expect(reft.edits[0]).toMatchObject({
      site: { layer: 1, component: "block_output" },
      intervention: { name: kind },
    });
    expectClose(await effect(reft, h!), output!.data, close, "h′");
    expect(assumed.join()).toMatch(/positions l1/);
    expect(assumed.join().includes("activation linear")).toBe(!["consreft", "lobireft"].includes(name));
  });

  test("saved here, read again, and written for pyreft: the same tensors under the same names", async () => {
    const original = recorded(name);
    const { reft } = await imported(original, { positions: "f2+l1", shareWeights: true });
    const files = adapterFiles(reft) as Record<string, Uint8Array> & Record<string, string>;
    const saved = readAdapter(
      model,
      { config: files[configFile] as string, weights: files[weightsFile] as Uint8Array },
      "f",
    );
    expect(saved.config.positions).toMatchObject({ first: 2, last: 1, tied: true });
    const { files: back } = writePyreft(await readAnyAdapter(folderOf(files)));
    const bin = Object.keys(original).find((file) => file.endsWith(".bin")) as string;
    expect(Object.keys(back).sort()).toEqual(Object.keys(original).sort());
    const [was, is] = [original, back].map((f) => decodeTorch(f[bin] as Uint8Array, bin)) as Map<string, TorchTensor>[];
    expect([...is!.keys()].sort()).toEqual([...was!.keys()].sort());
    for (const [key, { shape, data, dtype }] of was!) {
      expect(is!.get(key), key).toMatchObject({ shape, dtype });
      // Parametrised, R is kept, not the way in which training came to it.
      if (!key.includes("parametrizations")) expect(is!.get(key)?.data, key).toEqual(data);
    }
    const config = jsonOf(back["config.json"]);
    const { transformers_version: _, ...expected } = jsonOf(original["config.json"]);
    expect(config).toMatchObject(expected);
    const { reft: again, assumed } = await imported(back as Files, wide);
    expect(assumed).toEqual([]);
    expect(again.positions).toEqual(reft.positions);
    expectClose(await effect(again, h!), output!.data, close, "h′ after the way there and back");
  });

  test("written for EasySteer, compact: read again, it does the same", async () => {
    const { files } = writeEasySteer(await readAnyAdapter(folderOf(recorded(name)), wide));
    const bin = Object.values(files).find((file) => typeof file !== "string") as Uint8Array;
    expect([...decodeTorch(bin, "f").keys()].some((key) => key.includes("base"))).toBe(false);
    const { reft } = await imported(files as Files);
    expectClose(await effect(reft, h!), output!.data, close, "h′");
  });
});

describe("the type of linear parts", () => {
  test("is that of the file: bfloat16 does what it does in pyreft", async () => {
    const { reft } = await imported(recorded("loreft"));
    expect(reft.edits[0]?.intervention.dtype).toBe("bfloat16");
    const { h, native } = Object.fromEntries(goldenFloats("files/loreft.safetensors"));
    const narrow = (x: Float32Array): Float32Array => toFloats(fromFloats(x, "BF16").slice().buffer, "BF16");
    const is = narrow(await effect(reft, { shape: h!.shape, data: narrow(h!.data) }));
    expectClose(is, native!.data, 2 ** -8, "h′");
    for (const name of ["noreft", "consreft", "direft"]) {
      const { reft: other } = await imported(recorded(name));
      expect(other.edits[0]?.intervention.dtype, name).toBe("float32");
    }
  });
  test.each(["float32", "bfloat16", "float16"] as const)(
    "%s is saved, written for pyreft, and read again",
    async (dtype) => {
      const intervention = new LoreftIntervention({ embedDim: 32, lowRankDimension: 2, dtype });
      const reft = new ReftModel(model, { representations: { layer: 1, intervention }, positions: "l1" });
      const own = adapterFiles(reft) as { [configFile]: string; [weightsFile]: Uint8Array };
      expect(jsonOf(own[configFile])).toMatchObject({ representations: [{ dtype }] });
      const read = readAdapter(model, { config: own[configFile], weights: own[weightsFile] }, "f");
      expect(read.config.representations).toMatchObject([{ intervention: { dtype } }]);
      const { files, lost } = writePyreft(await readAnyAdapter(folderOf(own)));
      expect(lost.some((line) => line.startsWith("precision"))).toBe(dtype !== "bfloat16");
      const bin = Object.keys(files).find((file) => file.endsWith(".bin")) as string;
      const stored = { float32: "F32", bfloat16: "BF16", float16: "F16" }[dtype];
      const state = decodeTorch(files[bin] as Uint8Array, bin);
      expect([...state].map(([name, t]) => [name, t.dtype])).toEqual([
        ["weight", stored],
        ["bias", stored],
        ["rotate_layer", "F32"],
      ]);
      // What the file holds is what the edit computes with.
      const { reft: back } = await imported(withConfig(files as Files, { reft: undefined }));
      expect(back.edits[0]?.intervention.dtype).toBe(dtype);
      const h = { shape: [5, 32], data: Float32Array.from({ length: 160 }, (_, i) => Math.sin(i)) };
      expectClose(await effect(back, h), await effect(reft, h), close, "h′");
    },
  );
  test("an adapter saved before there was a choice is float32", async () => {
    const reft = new ReftModel(model, {
      representations: { layer: 1, intervention: new LoreftIntervention({ embedDim: 32, lowRankDimension: 2 }) },
      positions: "l1",
    });
    const own = adapterFiles(reft) as { [configFile]: string; [weightsFile]: Uint8Array };
    const old = own[configFile].replace(/\s*"dtype": "float32",(?=\s*"addBias")/, "");
    expect(old).not.toBe(own[configFile]);
    const { config } = readAdapter(model, { config: old, weights: own[weightsFile] }, "f");
    expect(config.representations).toMatchObject([{ intervention: { dtype: "float32" } }]);
    const strange = own[configFile].replace(/"dtype": "float32",(?=\s*"addBias")/, '"dtype": "int8",');
    expect(() => readAdapter(model, { config: strange, weights: own[weightsFile] }, "f")).toThrow(
      /representations\.0\.dtype/,
    );
  });
});

describe("two edits a layer, as pyreft makes them for untied positions", () => {
  test("give pyreft's logits", async () => {
    const { reft } = await imported(recorded("untied"), { positions: "f1+l1" });
    expect(reft.edits.map((e) => e.key)).toEqual(
      keysOf([0, 1, 0, 1].map((layer) => ({ layer, component: "block_output" }))),
    );
    const ids = goldenIntegers("files/untied.safetensors").get("input_ids")?.data as number[];
    const logits = await logitsOf(reft, ids, [[0], [0], [5], [5]]);
    expectClose(logits, goldenFloats("files/untied.safetensors").get("logits")?.data ?? [], 2e-5, "logits");
  });
  test("must be told their positions", async () => {
    await expect(imported(recorded("untied"))).rejects.toThrow(/two edits a layer.*--positions f7\+l7/);
    await expect(imported(recorded("loreft"), { positions: "f1+l1" })).rejects.toThrow(
      /one edit a layer.*--share-weights/,
    );
  });
});

test("linked edits stay one edit", async () => {
  const { reft } = await imported(recorded("linked"), { positions: "l1" });
  expect(reft.edits.map((e) => [e.weightsKey, e.link])).toEqual([
    ["layer_0_comp_block_output_unit_pos_nunit_1#0", "a"],
    ["layer_0_comp_block_output_unit_pos_nunit_1#0", "a"],
  ]);
  expect(reft.parameters.size).toBe(3);
  const { files } = writePyreft(await readAnyAdapter(folderOf(adapterFiles(reft))));
  const links = (jsonOf(files["config.json"]).representations as unknown[][]).map((r) => r[9]);
  expect(links).toEqual(["a", "a"]);
  expect(Object.keys(files)).toHaveLength(3);
});

test("edits of single heads are saved, written for pyreft, and come back", async () => {
  const intervention = new LoreftIntervention({ embedDim: model.config.headDim, lowRankDimension: 2 });
  const representations = { layer: 1, component: "attention_value_output", heads: [1], intervention };
  const reft = new ReftModel(model, { representations, positions: "l1" });
  const own = adapterFiles(reft) as { [configFile]: string; [weightsFile]: Uint8Array };
  const { config } = readAdapter(model, { config: own[configFile], weights: own[weightsFile] }, "f");
  expect(config.representations).toMatchObject([{ heads: [1] }]);
  const { files, lost } = writePyreft(await readAnyAdapter(folderOf(own)));
  expect(lost.join()).toMatch(/heads 1: name them in unit_locations/);
  expect((jsonOf(files["config.json"]).representations as unknown[][])[0]?.slice(0, 3)).toEqual([
    1,
    "head_attention_value_output",
    "h.pos",
  ]);
  const { reft: back } = await imported(files as Files);
  expect(adapterFiles(back)).toEqual(own);
  const { reft: strange, assumed } = await imported(withConfig(files as Files, { reft: undefined }));
  expect(assumed.join()).toMatch(/all heads/);
  expect(strange.edits[0]?.site.heads).toHaveLength(model.config.heads);
});

describe("older and other spellings of the same folder", () => {
  const original = recorded("loreft");
  const bin = original["intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin"] as Uint8Array;
  const config = { "config.json": original["config.json"] as Uint8Array };
  const fourteen = (jsonOf(original["config.json"]).representations as unknown[][])[0] as unknown[];
  const cases: [string, Files][] = [
    ["dots, before February 2025", { ...config, "intkey_layer.1.comp.block_output.unit.pos.nunit.1#0.bin": bin }],
    ["repr, before February 2024", { ...config, "intkey_layer.1.repr.block_output.unit.pos.nunit.1#0.bin": bin }],
    ["13 fields, before July 2024", withConfig(original, { representations: [fourteen.slice(0, 13)] })],
    [
      "fields by name",
      withConfig(original, { representations: [{ layer: 1, component: "block_output", unit: "pos" }] }),
    ],
    [
      "a class from elsewhere",
      withConfig(original, { intervention_types: ["<class 'my.own.place.LoreftIntervention'>"] }),
    ],
    ["a class without a module", withConfig(original, { intervention_types: ["LoreftIntervention"] })],
    [
      "a module path, which says the layer",
      {
        ...withConfig(original, { representations: [[0, "model.layers[1].output", ...fourteen.slice(2)]] }),
        "intkey_comp_model_layers[1]_output_unit_pos_nunit_1#0.bin": bin,
      },
    ],
    [
      "a trainer's checkpoint, without a config.json",
      { "intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin": bin },
    ],
  ];
  test.each(cases)("%s", async (_, files) => {
    const { reft } = await imported(files, { positions: "l1", ...wide });
    const { h, output } = Object.fromEntries(goldenFloats("files/loreft.safetensors"));
    expect(reft.edits[0]?.key).toBe("layer_1_comp_block_output_unit_pos_nunit_1#0");
    expectClose(await effect(reft, h!), output!.data, close, "h′");
  });

  test("without a config.json, a class that the tensors do not tell must be named", async () => {
    const { "config.json": _, ...files } = recorded("nodireft");
    await expect(imported(files)).rejects.toThrow(
      /Noreft or Nodireft.*--intervention noreft or --intervention nodireft/,
    );
    const { reft } = await imported(files, { intervention: "nodireft" });
    expect(reft.edits[0]?.intervention.name).toBe("NodireftIntervention");
  });

  test("EasySteer's bias, h + v, is LobiReFT of rank 1", async () => {
    const v = Float32Array.from({ length: 32 }, (_, i) => Math.sin(i));
    const state = encodeTorch({ bias: { shape: [32], data: v } }, "a");
    const types = ["<class 'easysteer.reft.pyreft.reft.algorithms.bias.BiasIntervention'>"];
    const { reft } = await imported({
      ...withConfig(original, { intervention_types: types }),
      "intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin": state,
    });
    expectClose(await effect(reft, { shape: [1, 32], data: new Float32Array(32) }), v, 1e-6, "v");
  });
});

describe("AdapterHub's", () => {
  const cases = [
    ["adapterhub-loreft", {}, "LoreftIntervention", "f3+l2", 4],
    ["adapterhub-noreft", {}, "NoreftIntervention", "f3", 2],
    ["adapterhub-direft", { intervention: "nodireft" }, "NodireftIntervention", "f3+l3", 2],
  ] as const;
  test.each(cases)("%s does the same here", async (name, said, kind, positions, edits) => {
    const { reft, assumed } = await imported(recorded(name), said);
    expect(reft.edits.map((e) => e.intervention.name)).toEqual(Array.from({ length: edits }, () => kind));
    const floats = goldenFloats(`files/${name}.safetensors`);
    for (const [i, { site }] of reft.edits.entries()) {
      const of = (what: string) => floats.get(`${site.layer}.${i < 2 ? 0 : 1}.${what}`);
      expectClose(await effect(reft, of("h")!, i), of("output")!.data, close, `h′ of edit ${i}`);
    }
    expect(jsonOf(adapterFiles(reft)[configFile])).toMatchObject({
      positions,
      shareWeights: name === "adapterhub-direft",
    });
    expect(reft.edits[0]?.intervention.dropout).toBe(0.05);
    expect(assumed.length).toBe(name === "adapterhub-noreft" ? 1 : 0);
  });
});

describe("refused, with nothing half-loaded:", () => {
  const loreft = recorded("loreft");
  const key = "intkey_layer_1_comp_block_output_unit_pos_nunit_1#0.bin";
  const state = Object.fromEntries(decodeTorch(loreft[key] as Uint8Array, key));
  const tensor = (name: string, change: (data: Float32Array) => Float32Array, shape = state[name]!.shape): Files => ({
    ...loreft,
    [key]: encodeTorch({ ...state, [name]: { shape, data: change(state[name]!.data as Float32Array) } }, "a"),
  });
  const { bias: _, ...withoutBias } = state;
  const hub = recorded("adapterhub-loreft");
  const fourteen = (jsonOf(loreft["config.json"]).representations as unknown[][])[0] as unknown[];
  const representation = (at: number, value: unknown): Files =>
    withConfig(loreft, { representations: [fourteen.with(at, value)] });
  const cases: [string, Files, RegExp][] = [
    ["an empty folder", {}, /no adapter: it has neither/],
    ["a model's folder", { "config.json": '{"model_type": "llama"}' }, /no adapter/],
    [
      "a missing file of weights",
      { "config.json": loreft["config.json"] as Uint8Array },
      /no file of weights for layer_1/,
    ],
    [
      "an edit that is none of ReFT's",
      withConfig(loreft, { intervention_types: ["<class 'pyvene.VanillaIntervention'>"] }),
      /none of ReFT's edits/,
    ],
    [
      "a class named like an object's insides",
      withConfig(loreft, { intervention_types: ["constructor"] }),
      /none of ReFT's/,
    ],
    ["more types than edits", withConfig(loreft, { intervention_types: ["a", "b"] }), /1 representations and 2/],
    [
      "representations of 5 fields",
      withConfig(loreft, { representations: [fourteen.slice(0, 5)] }),
      /representations\.0/,
    ],
    ["a negative layer", representation(0, -1), /representations\.0\.layer/],
    ["a path for a component", representation(1, "../../etc/passwd"), /no file of weights/],
    ["several positions at once", representation(3, 4), /4 at a time/],
    ["another unit", representation(2, "t"), /unit "t"/],
    ["a subspace partition", representation(7, [[0, 1]]), /subspace partition/],
    ["a missing tensor", { ...loreft, [key]: encodeTorch(withoutBias, "a") }, /"learned_source\.bias" is missing/],
    [
      "a tensor too many",
      { ...loreft, [key]: encodeTorch({ ...state, extra: state.bias! }, "a") },
      /has tensors.*"extra"/,
    ],
    ["a tensor of another shape", tensor("weight", (data) => data.slice(0, 32), [1, 32]), /\[1, 32\].*\[2, 32\]/],
    ["a NaN", tensor("bias", () => Float32Array.of(Number.NaN, 0)), /NaN/],
    [
      "an R of zeros, as pyreft leaves it under weight decay",
      tensor("rotate_layer", (d) => d.map(() => 0)),
      /not orthonormal/,
    ],
    [
      "another class's tensors",
      withConfig(loreft, { intervention_types: ["NoreftIntervention"] }),
      /no tensor "proj_layer\.weight"/,
    ],
    [
      "a pickle that runs code",
      { ...loreft, [key]: new Uint8Array(readFileSync(golden("files/torch/module.bin"))) },
      /Linear.*Nothing of it was run/,
    ],
    ["LoRA", withConfig(hub, { config: { architecture: "lora" } }, "adapter_config.json"), /is not "reft".*LoRA/],
    [
      "AdapterHub without weights",
      { "adapter_config.json": hub["adapter_config.json"] as Uint8Array },
      /neither adapter\.safetensors/,
    ],
    [
      "AdapterHub with an unknown activation",
      hubWith(hub, { non_linearity: "leakyrelu" }),
      /no activation called "leakyrelu"/,
    ],
    ["AdapterHub without positions", hubWith(hub, { prefix_positions: 0, suffix_positions: 0 }), /edits no position/],
  ];
  test.each(cases)("%s", async (_, files, message) => {
    await expect(imported(files)).rejects.toThrow(UserError);
    await expect(imported(files)).rejects.toThrow(message);
  });

  test("a layer or a width that the model does not have", async () => {
    const far = {
      ...representation(0, 7),
      "intkey_layer_7_comp_block_output_unit_pos_nunit_1#0.bin": loreft[key] as Uint8Array,
    };
    await expect(imported(far)).rejects.toThrow(/layer 7 does not exist/);
    const values = { weight: new Float32Array(80), bias: new Float32Array(2), rotate_layer: unit(40, 2) };
    const shapes = { weight: [2, 40], bias: [2], rotate_layer: [40, 2] };
    const other = Object.fromEntries(
      Object.entries(values).map(([n, data]) => [n, { shape: shapes[n as "bias"], data }]),
    );
    await expect(imported({ ...loreft, [key]: encodeTorch(other, "a") })).rejects.toThrow(
      /width 40, the model's have 32/,
    );
  });
});

function hubWith(files: Files, change: Record<string, unknown>): Files {
  const config = jsonOf(files["adapter_config.json"]).config as Record<string, unknown>;
  return withConfig(files, { config: { ...config, ...change } }, "adapter_config.json");
}

/** The first columns of the identity. */
function unit(d: number, r: number): Float32Array {
  return Float32Array.from({ length: d * r }, (_, i) => (Math.floor(i / r) === i % r ? 1 : 0));
}

describe("what is lost is said", () => {
  const relu = () =>
    new ReftModel(model, {
      representations: {
        layer: 0,
        intervention: new LoreftIntervention({ embedDim: 32, lowRankDimension: 2, actFn: "relu" }),
      },
      positions: "f2",
    });
  test("activation, positions and precision, in pyreft's files", () => {
    const files = adapterFiles(relu()) as { [configFile]: string; [weightsFile]: Uint8Array };
    const { lost } = writePyreft(plainAdapter({ config: files[configFile], weights: files[weightsFile] }, "f"));
    expect(lost.join("\n")).toMatch(/positions f2.*\n.*activation relu.*\n.*bfloat16/);
  });
  test("pyreft's matrices of D × D are refused where they would fill the disk", async () => {
    const adapter = await readAnyAdapter(folderOf(recorded("consreft")));
    const [edit] = adapter.edits;
    const many = { ...adapter, edits: Array.from({ length: 300_000 }, () => edit!) };
    expect(() => writePyreft(many)).toThrow(/take 1\.4 GB.*--to easysteer/);
  });
  test("formats are known by their files' names", async () => {
    expect(await adapterFormat(folderOf(adapterFiles(relu())))).toBe("reft");
    expect(await adapterFormat(folderOf(recorded("direft")))).toBe("pyreft");
    expect(await adapterFormat(folderOf(recorded("adapterhub-loreft")))).toBe("adapterhub");
    expect(await adapterFormat(folderOf({ "config.json": "{}" }))).toBe(undefined);
  });
});
