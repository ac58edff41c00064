/** Every op: its value and gradients against torch, and its derivative against finite differences of its own value. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DType, input, type Tensor } from "../src/graph/tensor.js";
import * as vocabulary from "../src/ops/index.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { HostTensor, Runtime } from "../src/runtime/runtime.js";
import { type AnyOp, checkDirections, evaluate, projected } from "./gradcheck.js";
import { type GradientCase, gradientCases } from "./gradient-cases.js";
import { expectClose, goldenJson, tolerance } from "./support.js";

const { gradients } = vocabulary;

/** Exports that are no ops: the reverse mode itself, a table of ops under the names of configs, and what wraps ops. */
const notOps = new Set([
  "gradients",
  "activations",
  "plainValues",
  "recomputed",
  "recomputedByRows",
  "recomputedInParts",
  "takeRows",
  "blockLinear",
  "zeros",
]);
const ops = new Map<string, AnyOp>();
const strays: string[] = [];
for (const [name, value] of Object.entries(vocabulary)) {
  if (typeof value === "function" && "spec" in value) ops.set(name, value as AnyOp);
  else if (!notOps.has(name)) strays.push(name);
}

interface Values {
  readonly shape: number[];
  readonly data: (number | boolean)[];
}

/** A row of goldens/ops/ops.json, written by scripts/golden/ops.py. */
interface Row {
  readonly op: string;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly inputs: readonly (Values & { readonly dtype: DType })[];
  readonly output: Values & { readonly dtype: DType };
  readonly outputGradient: Values | null;
  readonly inputGradients: readonly (Values | null)[];
}

const rows = goldenJson<Row[]>("ops/ops.json");

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

function host(dtype: DType, { shape, data }: Values): HostTensor {
  const values = data.map(Number);
  if (dtype === "int64") return { shape, data: BigInt64Array.from(values, (v) => BigInt(v)) };
  if (dtype === "int32") return { shape, data: Int32Array.from(values) };
  return { shape, data: dtype === "bool" ? Uint8Array.from(values) : Float32Array.from(values) };
}

/** All of an op's rows in one graph: value y and gradients g of row r are called `${r}y`, `${r}g${input}`. */
function goldenGraph(op: AnyOp, own: readonly Row[]) {
  const outputs: Record<string, Tensor> = {};
  const feeds: Record<string, HostTensor> = {};
  for (const [r, row] of own.entries()) {
    const inputs = row.inputs.map((x, i) => {
      feeds[`${r}x${i}`] = host(x.dtype, x);
      return input(`${r}x${i}`, x.dtype, x.shape);
    });
    const y = op(...inputs, row.attrs);
    outputs[`${r}y`] = y;
    expect({ dtype: y.type.dtype, shape: y.shape }, `type of case ${r}`).toEqual({
      dtype: row.output.dtype,
      shape: row.output.shape,
    });
    if (row.outputGradient === null) continue;
    feeds[`${r}w`] = host("float32", row.outputGradient);
    const wanted = inputs.filter((_, i) => row.inputGradients[i] !== null);
    const found = gradients(projected(y, input(`${r}w`, "float32", row.outputGradient.shape)), wanted);
    found.forEach((g, i) => {
      outputs[`${r}g${inputs.indexOf(wanted[i] as Tensor)}`] = g;
    });
  }
  return { outputs, feeds };
}

test("every export is an op with goldens and, where it has a derivative, gradient checks", () => {
  expect(strays, "exported from ops/, but no ops; name them in notOps if that is meant").toEqual([]);
  for (const [name, op] of ops) {
    const own = rows.filter((r) => r.op === name);
    expect(own.length, `golden rows of ${name}; add it to scripts/golden/ops.py`).toBeGreaterThan(0);
    const checked = gradientCases[name]?.length ?? 0;
    if (op.spec.vjp === undefined) {
      expect(["lessOrEqual", "and"], `${name} has no derivative, so must be named here`).toContain(name);
      expect(checked, `${name} has no derivative to check`).toBe(0);
    } else {
      expect(checked, `gradient checks of ${name}; add it to test/gradient-cases.ts`).toBeGreaterThan(0);
      expect(
        own.some((r) => r.inputGradients.some((g) => g !== null)),
        `golden gradients of ${name}`,
      ).toBe(true);
    }
  }
  expect(rows.filter((r) => !ops.has(r.op)).map((r) => r.op)).toEqual([]);
  expect(Object.keys(gradientCases).filter((name) => !ops.has(name))).toEqual([]);
});

test("the activations by name are exported ops, or the identity", () => {
  const exported = new Set<unknown>(ops.values());
  const x = input("x", "float32", [2]);
  for (const [name, f] of Object.entries(vocabulary.activations)) {
    if (name === "linear") expect(f(x)).toBe(x);
    else expect(exported.has(f), name).toBe(true);
  }
});

describe.each([...ops.keys()])("%s", (name) => {
  const op = ops.get(name) as AnyOp;

  test("value and gradients equal torch's", async () => {
    const own = rows.filter((r) => r.op === name);
    const { outputs, feeds } = goldenGraph(op, own);
    const [actual = {}] = await evaluate(runtime, outputs, [feeds]);
    for (const [r, row] of own.entries()) {
      const about = `case ${r} ${JSON.stringify(row.attrs)} of ${row.inputs.map((x) => `[${x.shape}]`).join(" ")}`;
      const compare = (key: string, expected: Values, what: string): void => {
        const { shape, data } = actual[key] as HostTensor;
        expect(shape, `${about}: shape of ${what}`).toEqual(expected.shape);
        expectClose(Array.from(data, Number), expected.data.map(Number), tolerance.op, `${about}: ${what}`);
      };
      compare(`${r}y`, row.output, "value");
      for (const [i, g] of row.inputGradients.entries()) if (g !== null) compare(`${r}g${i}`, g, `gradient ${i}`);
    }
  });

  if (op.spec.vjp !== undefined)
    test("derivative equals finite differences along random directions", () =>
      checkDirections(runtime, op, gradientCases[name] as readonly GradientCase[]));
});
