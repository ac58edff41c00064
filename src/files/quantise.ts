/** Block-wise symmetric quantisation of weights: floats to codes and scales. */

/** How a matrix is to be coded. */
export interface Quantisation {
  readonly bits: 4 | 8;
  /** How many neighbouring numbers of a row share a scale. */
  readonly blockSize: number;
}

export interface Coded {
  /** One code a byte, or two, the first in the lower half. */
  readonly codes: Uint8Array;
  /** One a block. */
  readonly scales: Float32Array;
}

/** The runtime's kernels take no smaller blocks. */
const smallestBlock = 16;

/** The largest block size up to `wanted` that divides rows of `columns`; undefined where none does. */
export function blockSizeFor(columns: number, wanted: number): number | undefined {
  for (let size = wanted; size >= smallestBlock; size /= 2) if (columns % size === 0) return size;
  return undefined;
}

/**
 * Codes of numbers that are whole blocks: w ≈ (code − 2^(bits−1)) · scale.
 *
 * 8 bits: scale = max|w| / 127. 4 bits: scale = m / −8, m the number furthest from 0 with its sign, so that all 16 codes are
 * in use (GGML's Q4_0); the largest of the other sign is cut to 7/8 of m.
 */
export function quantise(values: Float32Array, { bits, blockSize }: Quantisation): Coded {
  const blocks = values.length / blockSize;
  const codes = new Uint8Array((values.length * bits) / 8);
  const scales = new Float32Array(blocks);
  for (let b = 0; b < blocks; b++) {
    const [from, to] = [b * blockSize, (b + 1) * blockSize];
    let furthest = 0;
    for (let i = from; i < to; i++) {
      const v = values[i] as number;
      if (Math.abs(v) > Math.abs(furthest)) furthest = v;
    }
    const scale = Math.fround(bits === 8 ? Math.abs(furthest) / 127 : furthest / -8);
    scales[b] = scale;
    // Blocks of zeros, and of numbers too small for a scale of their own.
    const inverse = scale === 0 || !Number.isFinite(1 / scale) ? 0 : 1 / scale;
    if (bits === 8) for (let i = from; i < to; i++) codes[i] = Math.floor((values[i] as number) * inverse + 128.5);
    else
      for (let i = from; i < to; i += 2) {
        const low = Math.min(15, Math.floor((values[i] as number) * inverse + 8.5));
        const high = Math.min(15, Math.floor((values[i + 1] as number) * inverse + 8.5));
        codes[i >> 1] = low | (high << 4);
      }
  }
  return { codes, scales };
}

/** Rows of a matrix [rows, columns] as columns. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const turned = new Float32Array(values.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) turned[c * rows + r] = values[r * columns + c] as number;
  return turned;
}
