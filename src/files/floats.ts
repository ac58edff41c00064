/** Stored numbers as floats: bfloat16, half, single and double bytes to a Float32Array, and floats in 16 bits. */

export type FloatDType = "F64" | "F32" | "F16" | "BF16";

/**
 * Little-endian bytes as floats; F16, BF16 and F32 keep their exact value, F64 rounds to the nearest float.
 *
 * @param raw a buffer of its own: for F32 the result is a view of it
 */
export function toFloats(raw: ArrayBuffer, dtype: FloatDType): Float32Array {
  switch (dtype) {
    case "F32":
      return new Float32Array(raw);
    case "F64":
      return Float32Array.from(new Float64Array(raw));
    case "BF16": {
      // A float's upper half.
      const words = new Uint16Array(raw);
      const bits = new Uint32Array(words.length);
      // A loop, like the one below: `from` with a function takes 30 times as long, and there are billions of weights.
      for (let i = 0; i < words.length; i++) bits[i] = (words[i] as number) << 16;
      return new Float32Array(bits.buffer);
    }
    case "F16": {
      const words = new Uint16Array(raw);
      const floats = new Float32Array(words.length);
      const known = halves();
      for (let i = 0; i < words.length; i++) floats[i] = known[words[i] as number] as number;
      return floats;
    }
  }
}

let everyHalf: Float32Array | undefined;

/** The float of each of the 65,536 numbers that 16 bits are. */
function halves(): Float32Array {
  everyHalf ??= Float32Array.from({ length: 2 ** 16 }, (_, bits) => halfToFloat(bits));
  return everyHalf;
}

/** IEEE 754 binary16: (−1)ˢ · 2^(e−15) · (1 + m/1024); for e = 0 (−1)ˢ · 2^−14 · m/1024; for e = 31 ∞ or NaN. */
function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0x1f) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * 2 ** -14 * (mantissa / 1024);
  return sign * 2 ** (exponent - 15) * (1 + mantissa / 1024);
}

/** Each float as the nearest number of 16 bits, ties to even; beyond the largest it is ∞. */
export function fromFloats(values: Float32Array, dtype: "F16" | "BF16"): Uint16Array {
  if (dtype === "F16") return Uint16Array.from(values, floatToHalf);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  // Half a unit of the upper half is added to the lower one, less a bit where the upper half is even; a NaN must stay one.
  return Uint16Array.from(bits, (b, i) =>
    Number.isNaN(values[i]) ? 0x7fc0 : Math.floor((b + 0x7fff + ((b >>> 16) & 1)) / 0x10000),
  );
}

function floatToHalf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const size = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  // Halfway to 2¹⁶, which half cannot hold.
  if (size >= 65520) return sign | 0x7c00;
  // A mantissa that rounds up to 1024 carries into the exponent, as it should.
  if (size < 2 ** -14) return sign | toEven(size * 2 ** 24);
  const exponent = Math.floor(Math.log2(size));
  return sign + ((exponent + 15) << 10) + toEven((size / 2 ** exponent - 1) * 1024);
}

function toEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
}
