/** Products with block-wise quantised weights: the field's 4 and 8 bits, symmetric, one scale a block of a row. */

import type { Dim } from "../graph/dim.js";
import { type Emitter, type Op, op, typeError } from "../graph/op.js";
import { type Tensor, type TensorType, weight } from "../graph/tensor.js";

export interface BlockCoding {
  readonly bits: 4 | 8;
  /** How many neighbouring numbers of a row share a scale: a power of two from 16 on. */
  readonly blockSize: number;
  /**
   * How a product is computed. "gemm": weights are widened first, which many rows pay for. "codes": by the runtime's kernel for a
   * few rows, which reads codes (for 4 bits only). "int8": by the kernel that rounds rows to 8 bits, too, block by block; such
   * products err by 5–7e-3 of their size (root mean square, normal numbers, blocks of 32 and 128). Derivatives are always those of the exact product.
   */
  readonly by: "gemm" | "codes" | "int8";
}

/** W [N, K]: wₙₖ = (codeₙₖ − 2^(bits−1)) · scaleₙ,⌊k/blockSize⌋ */
export interface BlockWeight extends BlockCoding {
  /** uint8 [N, K/blockSize, blockSize·bits/8]; of two 4-bit codes in a byte the first is the lower half. A leaf. */
  readonly codes: Tensor;
  /** float32 [N, K/blockSize] */
  readonly scales: Tensor;
}

const sizesOf = (scales: TensorType, { blockSize }: BlockCoding): readonly [n: number, k: number] => {
  const [n, blocks] = scales.shape as [number, number];
  return [n, blocks * blockSize];
};

/**
 * W in full [N, K], from the names of its codes [N, K/blockSize, blockSize] and scales. Scaled in a second step: the runtime widens
 * codes of one scale for all four times as fast as those of one a block (8 bits; twice as fast for 4), to the same bits.
 */
function dequantized(e: Emitter, [codes, scales]: readonly string[], { type }: Tensor, coding: BlockCoding): string {
  const { bits, blockSize } = coding;
  return e.latest(scales as string, () => {
    const zero = e.code(bits === 8 ? "uint8" : "uint4", 2 ** (bits - 1));
    const wide = e.node("DequantizeLinear", [codes as string, e.float(1), zero]);
    const scaled = e.node("Mul", [wide, e.reshape(scales as string, type.shape, [...type.shape, 1])]);
    return e.reshape(scaled, [...type.shape, blockSize], sizesOf(type, coding));
  });
}

/** G·W [M, K] for G [M, N], codes one by one: what a derivative needs. */
const backProduct: Op<[g: Tensor, codes: Tensor, scales: Tensor], BlockCoding> = op<
  [Tensor, Tensor, Tensor],
  BlockCoding
>("DequantizedGemm", {
  type: ([g, , scales], coding) => ({
    dtype: "float32",
    shape: [g?.shape[0] as Dim, sizesOf(scales as TensorType, coding)[1]],
  }),
  lower: (e, [g, ...coded], { inputs: [, , scales], attributes }) =>
    e.node("Gemm", [g as string, dequantized(e, coded, scales as Tensor, attributes)], {}),
  flops: ([, , scales], y, coding) => [2, ...y.shape, sizesOf(scales as TensorType, coding)[0]],
});

/** A·Wᵀ [M, N] for A [M, K]; codes packed where a kernel reads them, else one by one. */
const matMulNBits: Op<[a: Tensor, codes: Tensor, scales: Tensor], BlockCoding> = op<
  [Tensor, Tensor, Tensor],
  BlockCoding
>("MatMulNBits", {
  type: (inputs, coding) => {
    const [a, , scales] = inputs as [TensorType, TensorType, TensorType];
    const [n, k] = sizesOf(scales, coding);
    if (a.shape.length !== 2 || a.shape[1] !== k) typeError("MatMulNBits", inputs, `wants rows of ${k} numbers`);
    return { dtype: "float32", shape: [a.shape[0] as Dim, n] };
  },
  rowwise: () => "first",
  vjp: ({ inputs: [, codes, scales], g, attributes }) => [
    () => backProduct(g, oneByOne(codes as Tensor, scales as Tensor, attributes), scales as Tensor, attributes),
    null,
    null,
  ],
  lower: (e, [a, ...coded], { inputs, attributes }) => {
    const { bits, blockSize, by } = attributes;
    const s = inputs[2] as Tensor;
    if (by === "gemm") return e.node("Gemm", [a as string, dequantized(e, coded, s, attributes)], { transB: 1 });
    const [n, k] = sizesOf(s.type, attributes);
    const sizes = { K: k, N: n, bits, block_size: blockSize, accuracy_level: by === "int8" ? 4 : 1 };
    return e.node("MatMulNBits", [a as string, ...coded], sizes, "com.microsoft");
  },
  flops: ([, , scales], y, coding) => [2, ...y.shape, sizesOf(scales as TensorType, coding)[1]],
});

/** The same bytes as codes [N, K/blockSize, blockSize] of uint8 or uint4. */
function oneByOne(codes: Tensor, scales: Tensor, coding: BlockCoding): Tensor {
  const { source } = codes;
  if (source.kind !== "weight") throw new Error("internal: codes that lie in no file");
  return weight(source.name, [...(scales.shape as number[]), coding.blockSize], {
    ...source.bytes,
    stored: coding.bits === 8 ? "uint8" : "uint4",
  });
}

/** x·Wᵀ [M, N] for rows x [M, K] */
export function blockLinear(x: Tensor, { codes, scales, ...coding }: BlockWeight): Tensor {
  return matMulNBits(x, coding.by === "gemm" ? oneByOne(codes, scales, coding) : codes, scales, coding);
}
