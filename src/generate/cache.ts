/** The key/value cache: memory beside the sessions, where each row fills its own beginning of every layer. */

import { PADDING_POSITION } from "../data/collate.js";
import { invariant } from "../errors.js";
import { pastKeys, pastValues } from "../models/family.js";
import type { Block, HostTensor, Keep, Runtime, Session, Store, StoredTensor } from "../runtime/runtime.js";

/** A decoder's key/value sizes. */
export interface CacheShape {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** The first `count` live tokens of a run's row `from` go to the end of the cache's row `row`. */
export interface Taken {
  readonly row: number;
  readonly from: number;
  readonly count: number;
}

/** Attention costs what the capacity costs, filled or not; growing copies it all. 64 loses a few per cent either way. */
const STEP = 64;

/** The capacity that holds `tokens`. */
export function capacityFor(tokens: number): number {
  return Math.max(STEP, Math.ceil(tokens / STEP) * STEP);
}

/**
 * Keys and values [B, KV, C, hd] for each layer. Row b's token at position j lies in column j, so a filled column's key position
 * is its number; unfilled columns have a position beyond every query. They hold finite numbers.
 */
export class KeyValueCache {
  readonly shape: CacheShape;
  readonly #runtime: Runtime;
  /** A part is a layer. There may be room for more rows than there are. */
  #keys: Store;
  #values: Store;
  /** C, the columns of each row. */
  capacity: number;
  /** How many columns each row has filled. */
  readonly lengths: number[];
  /** [B, C + 1]; the last column is the decoded token's own. */
  #positions: Int32Array;
  /** False after a run failed: what is stored is not to be relied on. */
  intact = true;

  /** @param runtime that of the sessions which read it */
  constructor(runtime: Runtime, { layers, kvHeads, headDim }: CacheShape, rows: number, capacity: number) {
    this.shape = { layers, kvHeads, headDim };
    this.#runtime = runtime;
    this.capacity = capacityFor(capacity);
    this.lengths = new Array<number>(rows).fill(0);
    this.#keys = this.#allocate(rows);
    this.#values = this.#allocate(rows);
    this.#positions = new Int32Array(rows * (this.capacity + 1)).fill(PADDING_POSITION);
  }

  get rows(): number {
    return this.lengths.length;
  }

  /** Numbers of one row in one layer. */
  get #rowSize(): number {
    return this.shape.kvHeads * this.shape.headDim * this.capacity;
  }

  #allocate(rows: number): Store {
    return this.#runtime.allocate(this.shape.layers, rows * this.#rowSize);
  }

  /** Frees the memory. */
  dispose(): void {
    this.#keys.dispose();
    this.#values.dispose();
  }

  /** The cache as feeds `past.keys.<layer>`, `past.values.<layer>`. */
  feeds(): Record<string, StoredTensor> {
    const { layers, kvHeads, headDim } = this.shape;
    const feeds: Record<string, StoredTensor> = {};
    const shape = [this.rows, kvHeads, this.capacity, headDim];
    for (let l = 0; l < layers; l++) {
      feeds[pastKeys(l)] = this.#keys.view(l, shape);
      feeds[pastValues(l)] = this.#values.view(l, shape);
    }
    return feeds;
  }

  /** Key positions int32 [B, C+T] for T live tokens a row, which follow what the row has filled. */
  keyPositions(t: number): HostTensor {
    const { capacity: c, rows } = this;
    // One token is the decoding step: its column is kept in place, so that no array is made.
    const data = t === 1 ? this.#positions : new Int32Array(rows * (c + t));
    for (let b = 0; b < rows; b++) {
      const at = b * (c + t);
      if (t !== 1) data.set(this.#positions.subarray(b * (c + 1), b * (c + 1) + c), at);
      for (let i = 0; i < t; i++) data[at + c + i] = (this.lengths[b] as number) + i;
    }
    return { shape: [rows, c + t], data };
  }

  /**
   * Runs a graph over T live tokens a row, whose keys and values [B, L·KV, T, hd] go into the cache instead of coming back. There
   * must be room for them.
   */
  async run(
    session: Session,
    feeds: Parameters<Session["run"]>[0],
    t: number,
    taken: readonly Taken[],
  ): Promise<Record<string, HostTensor>> {
    const keeps = this.#keeps(t, taken);
    try {
      const outputs = await session.run(feeds, keeps);
      for (const { row, count } of taken) this.#fill(row, count);
      return outputs;
    } catch (error) {
      this.intact = false;
      throw error;
    }
  }

  #keeps(t: number, taken: readonly Taken[]): Record<string, Keep> {
    const { layers, kvHeads, headDim } = this.shape;
    const c = this.capacity;
    const partStride = kvHeads * headDim * t;
    const blocks = taken.map(({ row, from, count }) => {
      const at = this.lengths[row] as number;
      invariant(at + count <= c, `${at} + ${count} tokens in a cache of ${c}`);
      return {
        ...this.#columns(count),
        ...{ from: from * layers * partStride, fromStride: t * headDim },
        ...{ to: row * this.#rowSize + at * headDim, toStride: c * headDim },
      };
    });
    return {
      keys: { store: this.#keys, partStride, blocks },
      values: { store: this.#values, partStride, blocks },
    };
  }

  /** The first columns of some rows: `count·hd` numbers of every head. */
  #columns(count: number, rows = 1): { runs: number; length: number } {
    return { runs: rows * this.shape.kvHeads, length: count * this.shape.headDim };
  }

  /** Fills the empty row `row` with the only row of another cache. */
  adopt(row: number, other: KeyValueCache): void {
    const count = other.lengths[0] as number;
    this.reserve(count);
    const { headDim } = this.shape;
    const [c, d] = [this.capacity, other.capacity];
    const place = { from: 0, fromStride: d * headDim, to: row * this.#rowSize, toStride: c * headDim };
    const block = { ...this.#columns(count), ...place };
    this.#keys.copy(other.#keys, [block]);
    this.#values.copy(other.#values, [block]);
    this.#fill(row, count);
  }

  #fill(row: number, count: number): void {
    const start = row * (this.capacity + 1);
    const from = this.lengths[row] as number;
    for (let i = from; i < from + count; i++) this.#positions[start + i] = i;
    this.lengths[row] = from + count;
  }

  /** Forgets row `row`'s tokens from position `length` on. */
  truncate(row: number, length: number): void {
    invariant(length <= (this.lengths[row] as number), `cannot cut ${this.lengths[row]} cached tokens to ${length}`);
    const start = row * (this.capacity + 1);
    this.#positions.fill(PADDING_POSITION, start + length, start + this.capacity);
    this.lengths[row] = length;
  }

  /** Drops row `row`: the last row takes its place. */
  remove(row: number): void {
    const last = this.rows - 1;
    this.gather(Array.from({ length: last }, (_, n) => (n === row ? last : n)));
  }

  /** Makes row i what row `sources[i]` was, for as many rows as there are sources; some rows may go on twice, others end. */
  gather(sources: readonly number[]): void {
    const size = this.#rowSize;
    const moves = sources.flatMap((source, row) => (source === row ? [] : [{ source, row }]));
    const block = (from: number, to: number): Block => {
      return { runs: 1, length: size, from: from * size, fromStride: 0, to: to * size, toStride: 0 };
    };
    const rearranged = (store: Store): Store => {
      if (sources.length * size > store.length) {
        const wide = this.#allocate(sources.length);
        wide.copy(
          store,
          sources.map((source, row) => block(source, row)),
        );
        store.dispose();
        return wide;
      }
      // A row may be wanted after another has taken its place: all that move are laid aside first.
      const wanted = moves.some(({ source }, i) => moves.slice(0, i).some(({ row }) => row === source));
      if (!wanted) {
        store.copy(
          store,
          moves.map(({ source, row }) => block(source, row)),
        );
        return store;
      }
      const aside = this.#allocate(moves.length);
      aside.copy(
        store,
        moves.map(({ source }, i) => block(source, i)),
      );
      store.copy(
        aside,
        moves.map(({ row }, i) => block(i, row)),
      );
      aside.dispose();
      return store;
    };
    if (moves.length > 0) [this.#keys, this.#values] = [rearranged(this.#keys), rearranged(this.#values)];
    this.#positions = gatherRows(this.#positions, this.capacity + 1, sources);
    const lengths = sources.map((source) => this.lengths[source] as number);
    this.lengths.splice(0, this.rows, ...lengths);
  }

  /** Makes room for `tokens` columns, moving what is filled. */
  reserve(tokens: number): void {
    if (tokens <= this.capacity) return;
    const { rows, capacity: before } = this;
    const { headDim } = this.shape;
    this.capacity = capacityFor(tokens);
    const after = this.capacity;
    const place = { from: 0, fromStride: before * headDim, to: 0, toStride: after * headDim };
    const widened = (store: Store): Store => {
      const wide = this.#allocate(rows);
      wide.copy(store, [{ ...this.#columns(before, rows), ...place }]);
      store.dispose();
      return wide;
    };
    this.#keys = widened(this.#keys);
    this.#values = widened(this.#values);
    const positions = new Int32Array(rows * (after + 1)).fill(PADDING_POSITION);
    for (let b = 0; b < rows; b++) {
      const start = b * (before + 1);
      positions.set(this.#positions.subarray(start, start + before), b * (after + 1));
    }
    this.#positions = positions;
  }
}

/** Rows of `width` numbers as `sources` orders them. */
function gatherRows(data: Int32Array, width: number, sources: readonly number[]): Int32Array {
  const rows = new Int32Array(sources.length * width);
  sources.forEach((source, row) => {
    rows.set(data.subarray(source * width, (source + 1) * width), row * width);
  });
  return rows;
}
