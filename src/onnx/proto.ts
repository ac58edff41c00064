/** The few ONNX messages we write (onnx.proto3, IR version 10), field numbers beside their names. Bytes only; no graph logic. */

import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { OnnxAttributes } from "../graph/op.js";

/** TensorProto.DataType */
export const dataType = {
  float32: 1,
  uint8: 2,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
  uint4: 21,
} as const;
export type DataType = keyof typeof dataType;

type Write = (w: BinaryWriter) => void;

function message(w: BinaryWriter, field: number, write: Write): void {
  w.tag(field, WireType.LengthDelimited).fork();
  write(w);
  w.join();
}

function text(w: BinaryWriter, field: number, value: string): void {
  w.tag(field, WireType.LengthDelimited).string(value);
}

function integer(w: BinaryWriter, field: number, value: number): void {
  w.tag(field, WireType.Varint).int64(value);
}

function attribute(w: BinaryWriter, name: string, value: OnnxAttributes[string]): void {
  const type = { float: 1, int: 2, string: 3, ints: 7 } as const;
  text(w, 1, name);
  if (typeof value === "number") {
    integer(w, 3, value);
    integer(w, 20, type.int);
  } else if (typeof value === "string") {
    text(w, 4, value);
    integer(w, 20, type.string);
  } else if ("float" in value) {
    w.tag(2, WireType.Bit32).float(value.float);
    integer(w, 20, type.float);
  } else {
    for (const i of value) integer(w, 8, i);
    integer(w, 20, type.ints);
  }
}

/** NodeProto */
export function node(
  type: string,
  inputs: readonly string[],
  output: string,
  attributes: OnnxAttributes,
  domain: string,
): Write {
  return (w) => {
    for (const i of inputs) text(w, 1, i);
    text(w, 2, output);
    text(w, 3, output);
    text(w, 4, type);
    for (const [name, value] of Object.entries(attributes)) message(w, 5, (a) => attribute(a, name, value));
    if (domain !== "") text(w, 7, domain);
  };
}

/** TensorProto with its bytes inside. */
export function tensor(name: string, type: DataType, shape: readonly number[], bytes: Uint8Array): Write {
  return (w) => {
    for (const d of shape) integer(w, 1, d);
    integer(w, 2, dataType[type]);
    text(w, 8, name);
    w.tag(9, WireType.LengthDelimited).bytes(bytes);
  };
}

/** TensorProto whose bytes lie in a file. */
export function externalTensor(
  name: string,
  type: DataType,
  shape: readonly number[],
  place: { location: string; offset: number; length: number },
): Write {
  return (w) => {
    for (const d of shape) integer(w, 1, d);
    integer(w, 2, dataType[type]);
    text(w, 8, name);
    for (const [key, value] of Object.entries(place))
      message(w, 13, (e) => {
        text(e, 1, key);
        text(e, 2, String(value));
      });
    integer(w, 14, 1);
  };
}

/** ValueInfoProto; a string dim becomes a dim_param, null stays unknown. */
export function valueInfo(name: string, type: DataType, shape: readonly (number | string | null)[]): Write {
  return (w) => {
    text(w, 1, name);
    message(w, 2, (t) =>
      message(t, 1, (tt) => {
        integer(tt, 1, dataType[type]);
        message(tt, 2, (s) => {
          for (const d of shape)
            message(s, 1, (dim) => {
              if (typeof d === "number") integer(dim, 1, d);
              else if (d !== null) text(dim, 2, d);
            });
        });
      }),
    );
  };
}

/** ModelProto, standard domain opset 21 (blocked DequantizeLinear) and the runtime's own domain. */
export function model(graph: {
  nodes: readonly Write[];
  initializers: readonly Write[];
  inputs: readonly Write[];
  outputs: readonly Write[];
  values: readonly Write[];
}): Uint8Array {
  const w = new BinaryWriter();
  integer(w, 1, 10);
  text(w, 2, "reft");
  message(w, 7, (g) => {
    for (const n of graph.nodes) message(g, 1, n);
    text(g, 2, "reft");
    for (const i of graph.initializers) message(g, 5, i);
    for (const i of graph.inputs) message(g, 11, i);
    for (const o of graph.outputs) message(g, 12, o);
    for (const v of graph.values) message(g, 13, v);
  });
  for (const [domain, version] of [
    ["", 21],
    ["com.microsoft", 1],
  ] as const)
    message(w, 8, (o) => {
      if (domain !== "") text(o, 1, domain);
      integer(o, 2, version);
    });
  return w.finish();
}
