/** Where frozen work is kept: in memory up to a budget, beyond it on disk; and on disk all of it where later runs are to find it. */

import type { PieceFolder, Pieces } from "../files/piece-folder-node.js";
import { hex, joinBytes, sha256 } from "./digest.js";
import type { CutOrigin } from "./frozen-keys.js";

/** How a number is kept. A bfloat16 is the upper half of a float32: half the room, three digits. */
export type FrozenDType = "float32" | "bfloat16";

/** Numbers as they are kept: bfloat16 by their bits. */
export type Piece = Float32Array | Uint16Array;

export interface FrozenStoreOptions {
  /** Bytes kept in memory. */
  readonly memory: number;
  /** Bytes kept on disk. Default 20 GB. */
  readonly disk?: number;
  /** Default float32. */
  readonly dtype?: FrozenDType;
  /** A folder that later runs find pieces in; without one they go with the run. */
  readonly folder?: string | undefined;
}

/** The pieces of one cut. */
export interface FrozenShelf {
  /** The piece of a key, `size` numbers; undefined where there is none, or it cannot be trusted. */
  get(key: string, size: number): Promise<Piece | undefined>;
  /** Keeps numbers where there is room, and returns them as they are kept. The array is the store's from then on. */
  put(key: string, values: Float32Array): Promise<Piece>;
}

/** Another number for every change in what pieces hold or in what their keys say. */
const formatVersion = 2;

/** One budget for all that is kept in it. */
export class FrozenStore {
  private readonly options: FrozenStoreOptions;
  private readonly memory = new Map<string, Piece>();
  private left: number;
  private folder: Promise<PieceFolder | undefined> | undefined;

  constructor(options: FrozenStoreOptions) {
    this.options = options;
    this.left = options.memory;
  }

  /** The pieces of a cut. Steps cut alike, as training and evaluation may be, share them. */
  async shelf(origin: CutOrigin): Promise<FrozenShelf> {
    const { options } = this;
    // A browser has no disk: there, what memory does not hold is computed again.
    this.folder ??= import("../files/piece-folder-node.js")
      .then((m) => m.openPieceFolder(options.folder, options.disk ?? 20e9))
      .catch(() => undefined);
    const folder = await this.folder;
    const dtype = options.dtype ?? "float32";
    const persistent = folder?.persistent === true;
    const name = await nameOf(origin, dtype, persistent);
    // Weights that cannot be told apart from others are good for this run only.
    const pieces = name === undefined ? undefined : await folder?.shelf(name);
    return new Shelf(this, {
      dtype,
      name: name ?? hex(crypto.getRandomValues(new Uint8Array(16))),
      pieces,
      persistent,
    });
  }

  find(id: string): Piece | undefined {
    return this.memory.get(id);
  }

  /** Keeps a piece in memory where it fits the budget. */
  keep(id: string, piece: Piece): boolean {
    if (piece.byteLength > this.left) return false;
    if (!this.memory.has(id)) this.left -= piece.byteLength;
    this.memory.set(id, piece);
    return true;
  }

  async dispose(): Promise<void> {
    await (await this.folder)?.dispose();
    this.memory.clear();
    this.left = 0;
  }
}

interface ShelfParts {
  readonly dtype: FrozenDType;
  readonly name: string;
  readonly pieces: Pieces | undefined;
  readonly persistent: boolean;
}

class Shelf implements FrozenShelf {
  private readonly store: FrozenStore;
  private readonly parts: ShelfParts;

  constructor(store: FrozenStore, parts: ShelfParts) {
    this.store = store;
    this.parts = parts;
  }

  async get(key: string, size: number): Promise<Piece | undefined> {
    const { dtype, name, pieces } = this.parts;
    const kept = this.store.find(name + key);
    if (kept !== undefined) return kept.length === size ? kept : undefined;
    const numbers = dtype === "bfloat16" ? Uint16Array : Float32Array;
    const bytes = await pieces?.read(key, size * numbers.BYTES_PER_ELEMENT);
    if (bytes === undefined) return undefined;
    const piece = new numbers(bytes.buffer);
    this.store.keep(name + key, piece);
    return piece;
  }

  async put(key: string, values: Float32Array): Promise<Piece> {
    const { dtype, name, pieces, persistent } = this.parts;
    const piece = dtype === "bfloat16" ? toBFloat16(values) : values;
    if (!this.store.keep(name + key, piece) || persistent)
      await pieces?.write(key, new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength));
    return piece;
  }
}

/** Says all that values come from beside the tokens: 32 hex digits. Undefined where files of weights cannot be read. */
async function nameOf(
  { graph, files, device }: CutOrigin,
  dtype: FrozenDType,
  lasting: boolean,
): Promise<string | undefined> {
  const { fileIdentity } = lasting ? await import("../files/file-identity-node.js") : { fileIdentity: undefined };
  try {
    const weights = fileIdentity === undefined ? [] : await Promise.all(files.map((path) => fileIdentity(path)));
    const words = new TextEncoder().encode(JSON.stringify([formatVersion, dtype, device, files, weights]));
    return hex((await sha256(joinBytes(await sha256(words), graph))).subarray(0, 16));
  } catch {
    return undefined;
  }
}

/** Rounded to the nearest, ties to even; a NaN stays one. */
export function toBFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) {
    const x = bits[i] as number;
    const nan = (x & 0x7fffffff) > 0x7f800000;
    halves[i] = nan ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
  return halves;
}
