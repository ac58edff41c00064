/** What is written into a model: inputs by name, weights by place, shapes and constants once. */

import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, test } from "vitest";
import { constant, input, scalar, type Tensor, weight, weightRows } from "../graph/tensor.js";
import { add, concat, expand, gather, gemm, mul, reshape, transpose } from "../ops/index.js";
import { toOnnx } from "./emit.js";

/** The fields of a protobuf message: numbers, or bytes still to be read. */
function fields(bytes: Uint8Array): [number, number | Uint8Array][] {
  const reader = new BinaryReader(bytes);
  const found: [number, number | Uint8Array][] = [];
  while (reader.pos < reader.len) {
    const [field, wire] = reader.tag();
    if (wire === WireType.Varint) found.push([field, Number(reader.int64())]);
    else if (wire === WireType.LengthDelimited) found.push([field, reader.bytes()]);
    else {
      reader.skip(wire);
      found.push([field, Number.NaN]);
    }
  }
  return found;
}

const all = (bytes: Uint8Array, field: number): Uint8Array[] =>
  fields(bytes).flatMap(([f, v]) => (f === field && v instanceof Uint8Array ? [v] : []));
const text = (bytes: Uint8Array, field: number): string => new TextDecoder().decode(all(bytes, field)[0]);

function read(outputs: Record<string, Tensor>, device?: string) {
  const { bytes, ...rest } = toOnnx(outputs, device);
  const graph = all(bytes, 7)[0] as Uint8Array;
  return {
    ...rest,
    bytes,
    // In the order they are meant to run in, which is the listing read backwards.
    nodes: all(graph, 1)
      .map((n) => text(n, 4))
      .toReversed(),
    initializers: all(graph, 5),
    inputNames: all(graph, 11).map((v) => text(v, 1)),
    outputNames: all(graph, 12).map((v) => text(v, 1)),
    values: Object.fromEntries(all(graph, 13).map((v) => [text(v, 1), sizesOf(v)])),
  };
}

/** The sizes that a ValueInfoProto gives: numbers, and names of those that are known when it runs. */
function sizesOf(value: Uint8Array): (number | string)[] {
  const shape = [2, 1, 2].reduce((bytes, field) => all(bytes, field)[0] as Uint8Array, value);
  return all(shape, 1).map((dim) => {
    const [[field, size]] = fields(dim) as [[number, number | Uint8Array]];
    return field === 1 ? (size as number) : text(dim, 2);
  });
}

const place = (path: string) => ({ path, offset: 5_000_000_123, length: 24, stored: "float32" }) as const;

function externalData(initializer: Uint8Array): Record<string, string> {
  return Object.fromEntries(all(initializer, 13).map((entry) => [text(entry, 1), text(entry, 2)]));
}

describe("a model", () => {
  test("says the sizes of every value that it computes, by the names that its inputs have", () => {
    const [x, w] = [input("x", "float32", ["B", "T", 4]), input("w", "float32", [4, 8])];
    const rows = reshape(x, { shape: ["B*T", 4] });
    const m = read({ y: mul(gemm(rows, w, {}), scalar(2)) });
    expect(m.nodes).toEqual(["Reshape", "Gemm", "Mul"]);
    expect(Object.values(m.values)).toEqual([
      ["B*T", 4],
      ["B*T", 8],
    ]);
    expect(m.outputNames).toEqual(["y"]);
  });

  test("has the inputs on the way to its outputs, by name, and no others", () => {
    const [b, a] = [input("b", "float32", ["N"]), input("a", "float32", ["N"])];
    input("unused", "float32", [1]);
    const m = read({ y: add(b, a), z: mul(b, b) });
    expect(m.inputs).toEqual([
      { name: "a", dtype: "float32", shape: ["N"] },
      { name: "b", dtype: "float32", shape: ["N"] },
    ]);
    expect(m.inputNames).toEqual(["a", "b"]);
    expect(m.outputNames).toEqual(["y", "z"]);
    expect(m.outputs).toEqual(["y", "z"]);
    expect(m.nodes).toEqual(["Add", "Mul"]);
  });

  test("copies what leaves it only where that is an input, or leaves twice", () => {
    const x = input("x", "float32", ["N"]);
    const y = add(x, x);
    const m = read({ x2: x, y, again: y, z: mul(y, y) });
    expect(m.nodes.toSorted()).toEqual(["Add", "Identity", "Identity", "Mul"]);
    expect(m.outputNames).toEqual(["x2", "y", "again", "z"]);
  });

  test("is the same bytes for the same graph", () => {
    const graph = () => ({ y: reshape(input("x", "float32", ["B", "T", 4]), { shape: ["B*T", 4] }) });
    expect(toOnnx(graph()).bytes).toEqual(toOnnx(graph()).bytes);
  });

  test("refuses two inputs of one name", () => {
    const [a, b] = [input("x", "float32", [1]), input("x", "float32", [1])];
    expect(() => toOnnx({ y: add(a, b) })).toThrow("two graph inputs are called x");
    expect(() => toOnnx({ x: add(a, a) })).toThrow("an input and an output are called x");
  });

  test("holds a number or a list of sizes once, however often it is used", () => {
    const x = input("x", "float32", [2, 3]);
    const y = reshape(reshape(reshape(x, { shape: [3, 2] }), { shape: [6] }), { shape: [3, 2] });
    const m = read({ y: mul(mul(y, scalar(2)), scalar(2)) });
    expect(m.initializers).toHaveLength(3);
  });

  test("reads a symbolic size from an input that has it, once", () => {
    const [past, x] = [input("past", "float32", ["P", 2]), input("x", "float32", ["T", 2])];
    const all = concat(past, x, { axis: 0 });
    const grown = (rows: Tensor): Tensor => expand(rows, { shape: ["P+T", 2] });
    const m = read({ y: add(all, add(grown(scalar(1)), grown(scalar(2)))) });
    expect(m.nodes.filter((n) => n === "Shape")).toHaveLength(2);
  });
});

describe("a weight", () => {
  test("is a place in its file: path without the first slash, offset and length", () => {
    const w = weight("w", [3, 2], place("/models/a b/model.safetensors"));
    const m = read({ y: gemm(input("x", "float32", ["N", 2]), w, { transB: true }) });
    expect(m.initializers.map(externalData)).toEqual([
      { location: "models/a b/model.safetensors", offset: "5000000123", length: "24" },
    ]);
    expect(m.weightsRoot).toBe("/");
    expect(m.bytes.length).toBeLessThan(500);
  });

  test("in a Windows path is a place under the root of its drive or share", () => {
    const model = (...paths: string[]) =>
      read({ y: paths.map((p) => weight(p, [3, 2], place(p))).reduce<Tensor>((a, b) => add(a, b), scalar(0)) });
    const drive = model("C:\\Users\\me\\model-1.safetensors", "c:/Users/me/model-2.safetensors");
    expect(drive.weightsRoot).toBe("C:/");
    const places = drive.initializers.map(externalData).flatMap((d) => d.location ?? []);
    expect(places).toEqual(["Users/me/model-1.safetensors", "Users/me/model-2.safetensors"]);
    expect(model("\\\\server\\share\\m\\w.safetensors").weightsRoot).toBe("//server/share/");
    expect(() => model("C:\\a.safetensors", "D:\\b.safetensors")).toThrow("C:/ and D:/");
  });

  test("stored in 16 bits is widened where it is used, so that no copy of the file is made", () => {
    const w = weight("w", [3, 2], { path: "/w", offset: 0, length: 12, stored: "bfloat16" });
    const v = weight("v", [2, 3], { path: "/w", offset: 12, length: 12, stored: "bfloat16" });
    const x = input("x", "float32", ["N", 2]);
    const by = (h: Tensor, m: Tensor): Tensor => gemm(h, m, { transB: true });
    const m = read({ y: by(by(by(x, w), v), w) });
    expect(m.nodes).toEqual(["Cast", "Gemm", "Cast", "Gemm", "Cast", "Gemm"]);
    // One after the other, such as a head for the logits and for their derivative, use the same.
    expect(read({ y: by(gemm(by(x, w), w, {}), w) }).nodes).toEqual(["Cast", "Gemm", "Gemm", "Gemm"]);
    const bias = weight("b", [3], { path: "/w", offset: 24, length: 6, stored: "bfloat16" });
    const biased = (h: Tensor, m: Tensor): Tensor => gemm(h, m, bias, { transB: true });
    const vectors = read({ y: biased(by(biased(x, w), v), w) });
    expect(vectors.nodes).toEqual(["Cast", "Cast", "Gemm", "Cast", "Gemm", "Cast", "Gemm"]);
    const rows = read({ y: gather(w, constant(BigInt64Array.of(0n), [1]), {}) });
    expect(rows.nodes).toEqual(["Gather", "Cast"]);
    expect(m.widening).toBeUndefined();
  });

  test("stored in 16 bits is widened before, by a graph of its own, where the device has no kernels for that", () => {
    const w = weight("w", [3, 2], { path: "/w", offset: 0, length: 12, stored: "bfloat16" });
    const b = weight("b", [3], { path: "/w", offset: 12, length: 12, stored: "float32" });
    const x = input("x", "float32", ["N", 2]);
    const m = read({ y: gemm(x, w, b, { transB: true }) }, "webgpu");
    expect(m.nodes.slice(-1)).toEqual(["Gemm"]);
    const [wide, narrow] = m.initializers.map(externalData).filter((d) => d.location !== undefined);
    expect(wide).toEqual({ location: m.widening?.outputs[0], offset: "0", length: "24" });
    expect(narrow).toEqual({ location: "w", offset: "12", length: "12" });
    const rows = read({ y: gather(w, constant(BigInt64Array.of(0n), [1]), {}) }, "webgpu");
    expect(rows.nodes).toEqual(["Gather"]);
  });

  test.each(["float32", "bfloat16"] as const)(
    "in part (%s) is in memory once: mapped, or cut from the whole where it is there",
    (stored) => {
      const size = stored === "float32" ? 4 : 2;
      const w = weight("w", [5, 2], { path: "/w", offset: 100, length: 10 * size, stored });
      const [x, indices] = [input("x", "float32", ["N", 2]), constant(BigInt64Array.of(0n), [1])];
      const part = gemm(x, weightRows(w, 1, 4), { transB: true });
      const places = (m: ReturnType<typeof read>) =>
        m.initializers.map(externalData).filter((d) => d.location !== undefined);
      const both = read({ part, taken: gather(w, indices, {}) });
      expect(places(both).map(({ offset, length }) => [Number(offset), Number(length)])).toEqual([
        [100 + 2 * size, 6 * size],
        [100, 10 * size],
      ]);
      const cut = read({ part, taken: gather(w, indices, {}) }, "webgpu");
      expect(cut.nodes).toEqual(["Slice", "Gemm", "Gather"]);
      expect(places(cut)).toHaveLength(1);
      expect(cut.widening?.outputs).toEqual(stored === "float32" ? undefined : [places(cut)[0]?.location]);
      // By itself it is a weight like any other.
      const alone = read({ part }, "webgpu");
      expect(alone.nodes).toEqual(["Gemm"]);
      expect(Number(places(alone)[0]?.length)).toBe(24);
    },
  );
});

describe("reshapes", () => {
  const x = input("x", "float32", ["N", 6]);
  const split = reshape(x, { shape: ["N", 2, 3] });

  test("one after another are one, and what nothing reads is not written", () => {
    const m = read({ y: reshape(split, { shape: [2, "N", 3] }) });
    expect(m.nodes).toEqual(["Reshape"]);
  });

  test("there and back are none", () => {
    expect(read({ y: reshape(split, { shape: ["N", 6] }) }).nodes).toEqual(["Identity"]);
  });

  test("that are alike are one", () => {
    const again = reshape(x, { shape: ["N", 2, 3] });
    expect(read({ y: add(split, again) }).nodes).toEqual(["Reshape", "Add"]);
  });

  test("are transposes that move axes of size 1 only", () => {
    const one = input("x", "float32", ["N", 1, 3]);
    expect(read({ y: transpose(one, { axes: [1, 0, 2] }) }).nodes).toEqual(["Reshape"]);
    expect(read({ y: transpose(one, { axes: [2, 0, 1] }) }).nodes).toEqual(["Transpose"]);
  });
});
