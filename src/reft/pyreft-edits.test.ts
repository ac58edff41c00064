/** Every edit and its gradients against pyreft's, in float32 and in 16 bits. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectClose, goldenFloats, goldenJson } from "../../test/support.js";
import { fromFloats, toFloats } from "../files/floats.js";
import { input, type Tensor } from "../graph/tensor.js";
import { toOnnx } from "../onnx/emit.js";
import { type ActivationName, gradients, mul, reduceSum } from "../ops/index.js";
import { openNodeRuntime } from "../runtime/node.js";
import type { HostTensor, Runtime } from "../runtime/runtime.js";
import { ConsreftIntervention } from "./consreft.js";
import type { EditDType, Intervention } from "./intervention.js";
import { interventionClass } from "./interventions.js";

interface Case {
  readonly case: number;
  readonly intervention: string;
  readonly dtype?: EditDType;
  readonly options: { readonly act_fn?: ActivationName | null; readonly add_bias?: boolean };
  readonly d: number;
  readonly r: number;
}

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

function make({ intervention, dtype, options, d, r }: Case): Intervention {
  return new (interventionClass(intervention))({
    embedDim: d,
    lowRankDimension: r,
    ...(dtype === undefined ? {} : { dtype }),
    ...(options.act_fn ? { actFn: options.act_fn } : {}),
    ...(options.add_bias === undefined ? {} : { addBias: options.add_bias }),
  });
}

/** A case's golden, R under its own name. */
function values(file: string, n: number): (name: string) => Float32Array {
  const all = goldenFloats(file);
  return (name) => {
    const found = all.get(`${n}.${name}`) ?? all.get(`${n}.${name}.weight`);
    if (found === undefined) throw new Error(`no ${n}.${name}`);
    return found.data;
  };
}

/** h′, and the gradients of Σ h′·g by h and the parameters. */
async function run(edit: Intervention, h: Float32Array, golden: (name: string) => Float32Array) {
  const d = edit.embedDim;
  const [state, g] = [input("h", "float32", ["M", d]), input("g", "float32", ["M", d])];
  const shapes = Object.entries(edit.parameters);
  const tensors = Object.fromEntries(shapes.map(([name, { shape }]) => [name, input(name, "float32", shape)]));
  const out = edit.edit(state, tensors);
  const wrt: [string, Tensor][] = [["h", state], ...Object.entries(tensors)];
  const found = gradients(
    reduceSum(mul(out, g), { axes: [0, 1] }),
    wrt.map(([, t]) => t),
  );
  const graph = toOnnx({ out, ...Object.fromEntries(wrt.map(([name], i) => [`grad.${name}`, found[i] as Tensor])) });
  const rows = h.length / d;
  const feeds: Record<string, HostTensor> = {
    h: { shape: [rows, d], data: h },
    g: { shape: [rows, d], data: golden("grad_output") },
    ...Object.fromEntries(shapes.map(([name, { shape }]) => [name, { shape, data: golden(name) }])),
  };
  const session = await runtime.open(graph);
  const result = await session.run(
    Object.fromEntries(graph.inputs.map(({ name }) => [name, feeds[name] as HostTensor])),
  );
  await session.dispose();
  return result;
}

const named = (c: Case): [string, Case] => [
  `${c.case} ${c.intervention} ${c.dtype ?? ""} ${JSON.stringify(c.options)}`,
  c,
];

describe("in float32", () => {
  test.each(goldenJson<Case[]>("loreft/edits.json").map(named))("%s", async (_, c) => {
    const edit = make(c);
    const golden = values("loreft/edits.safetensors", c.case);
    const found = await run(edit, golden("h"), golden);
    expectClose(found.out?.data as Float32Array, golden("output"), 2e-6, "h′");
    expectClose(found["grad.h"]?.data as Float32Array, golden("grad_h"), 1e-5, "gradient by h");
    for (const name of Object.keys(edit.parameters))
      expectClose(found[`grad.${name}`]?.data as Float32Array, golden(`grad.${name}`), 1e-5, `gradient by ${name}`);
  });
});

/** What rounding to the nearest can move a number by, over its size. */
const units = { bfloat16: 2 ** -9, float16: 2 ** -12 };

/** As that type holds them. */
function rounded(values: Float32Array, dtype: "bfloat16" | "float16"): Float32Array {
  const narrow = dtype === "bfloat16" ? "BF16" : "F16";
  return toFloats(fromFloats(values, narrow).slice().buffer, narrow);
}

describe.each(["bfloat16", "float16"] as const)("in %s", (dtype) => {
  const u = units[dtype];
  const own = goldenJson<Case[]>("loreft/dtypes.json").filter((c) => c.dtype === dtype);

  test.each(own.map(named))("%s", async (_, c) => {
    const edit = make(c);
    const golden = values("loreft/dtypes.safetensors", c.case);
    const found = await run(edit, golden("h"), golden);
    const out = found.out?.data as Float32Array;
    // Largest seen 0.1 u, where an activation is rounded the other way. Without rounding the linear edits are 2 to 8 u off.
    expectClose(out, golden("output"), u, "h′");
    // pyreft rounds gradients too, at each step of their way: largest seen 18 u.
    for (const name of ["h", ...Object.keys(edit.parameters)]) {
      const expected = golden(name === "h" ? "grad_h" : `grad.${name}`);
      expectClose(found[`grad.${name}`]?.data as Float32Array, expected, 24 * u, `gradient by ${name}`);
    }
  });

  test.each(own.map(named))("%s: as pyreft runs it, on a hidden state of that type", async (_, c) => {
    const golden = values("loreft/dtypes.safetensors", c.case);
    const found = await run(make(c), rounded(golden("h"), dtype), golden);
    // pyreft rounds what an edit adds and what it gives, or only the latter; ours adds in float32.
    expectClose(rounded(found.out?.data as Float32Array, dtype), golden("native"), 2 * u, "h′");
  });

  test("rounds the linear parts, and leaves what has none", async () => {
    for (const c of own) {
      const golden = values("loreft/dtypes.safetensors", c.case);
      const [narrow, wide] = await Promise.all(
        [c, { ...c, dtype: "float32" as const }].map((each) => run(make(each), golden("h"), golden)),
      );
      const same = ["ConsreftIntervention", "LobireftIntervention"].includes(c.intervention);
      expect(String(narrow?.out?.data) === String(wide?.out?.data), c.intervention).toBe(same);
    }
  });
});

test("another dtype is refused", () => {
  expect(() => new ConsreftIntervention({ embedDim: 4, lowRankDimension: 1, dtype: "int8" as EditDType })).toThrow(
    /no dtype "int8" for edits.*float32, bfloat16, float16/,
  );
});
