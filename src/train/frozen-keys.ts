/** Keys of frozen work: what it was computed from, so that what has the same key is the same. */

import type { Span } from "../data/collate.js";
import type { Sequence } from "../data/example.js";
import { topological } from "../graph/tensor.js";
import { toOnnx } from "../onnx/emit.js";
import { hex, joinBytes, sha256 } from "./digest.js";
import type { Outputs } from "./objective.js";

/** What the values of a cut come from, beside the tokens. */
export interface CutOrigin {
  /** The frozen graph as the runtime gets it: every op, and place and type of every weight. */
  readonly graph: Uint8Array;
  /** Files that its weights lie in. */
  readonly files: readonly string[];
  readonly device: string;
}

export function cutOrigin(frozen: Outputs, device: string): CutOrigin {
  const files = new Set<string>();
  for (const { source } of topological(Object.values(frozen)))
    if (source.kind === "weight") files.add(source.bytes.path);
  return { graph: toOnnx(frozen, device).bytes, files: [...files].sort(), device };
}

/** Tokens of a past that are kept as one piece: examples share those that begin alike. */
export const chunkTokens = 32;

/** Keys of a sequence's pieces, 32 hex digits each. */
export interface PieceKeys {
  /** Of the first, second … `chunkTokens` tokens of the past; each says all tokens up to its end. */
  readonly chunks: readonly string[];
  /** Of the rest of the past and of the live tokens. */
  readonly own: string;
}

/** A chain of hashes: of nothing, of the first chunk after that, of the second after the first … */
export async function pieceKeys(sequence: Sequence, { start, end }: Span, shared: number): Promise<PieceKeys> {
  const chunks: string[] = [];
  let last = new Uint8Array();
  const after = async (kind: number, numbers: readonly number[]): Promise<Uint8Array<ArrayBuffer>> => {
    const words = Int32Array.from([kind, ...numbers]);
    return (await sha256(joinBytes(last, new Uint8Array(words.buffer)))).subarray(0, 16);
  };
  const { inputIds, tokenTypeIds } = sequence;
  for (let at = 0; at < shared; at += chunkTokens) {
    last = await after(1, inputIds.slice(at, at + chunkTokens));
    chunks.push(hex(last));
  }
  const types = tokenTypeIds?.slice(0, end) ?? [];
  const own = await after(2, [start, end, types.length, ...inputIds.slice(shared, end), ...types]);
  return { chunks, own: hex(own) };
}
