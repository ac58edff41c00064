/** What is computed once an example: hidden states at the cut for its live tokens, keys and values of the tokens before them. */

import type { Span } from "../data/collate.js";
import type { Sequence } from "../data/example.js";
import { groupsByLength } from "../data/groups.js";
import { chunkTokens, type PieceKeys, pieceKeys } from "./frozen-keys.js";
import {
  assemble,
  type FrozenFeeds,
  type FrozenRun,
  type FrozenShape,
  ownPiece,
  ownSize,
  pastPiece,
  pastSize,
  sharedTokens,
} from "./frozen-pieces.js";
import type { FrozenShelf, Piece } from "./frozen-store.js";

/**
 * Tokens of one pass over the frozen graph, padding included. 135M shape, 488 tokens a text: a text at a time 25–30 % faster
 * than ten, whose activations no longer fit the processor's caches.
 */
const PASS_TOKENS = 1024;

/** Frozen work by tokens, computed when first asked for and kept. */
export class FrozenCache {
  private readonly shape: FrozenShape;
  private readonly shelf: FrozenShelf;
  private readonly compute: (sequences: readonly Sequence[]) => Promise<FrozenRun>;
  private readonly keys = new WeakMap<Sequence, PieceKeys>();
  /** The last batch as feeds: a few examples in one batch come back in every step. */
  private last: { readonly sequences: readonly Sequence[]; readonly feeds: FrozenFeeds } | undefined;

  /** @param compute runs the frozen graph over sequences */
  constructor(shape: FrozenShape, shelf: FrozenShelf, compute: (sequences: readonly Sequence[]) => Promise<FrozenRun>) {
    this.shape = shape;
    this.shelf = shelf;
    this.compute = compute;
  }

  /**
   * The frozen feeds of a batch. They stay this cache's own: what is lent comes back to it, and serves the next batch.
   *
   * @param length live tokens a row, padding included
   */
  async feeds(sequences: readonly Sequence[], spans: readonly Span[], length: number): Promise<FrozenFeeds> {
    const { last, shape } = this;
    if (last?.sequences.length === sequences.length && last.sequences.every((e, i) => e === sequences[i]))
      return last.feeds;
    this.last = undefined;
    const keys = await Promise.all(sequences.map((e, i) => this.keysOf(e, spans[i] as Span)));
    const pieces = await this.kept(keys, spans);
    await this.complete(pieces, sequences, keys, spans);
    const piece = (key: string): Piece => pieces.get(key) as Piece;
    const entries = keys.map(({ chunks, own }, i) => {
      const { start, end } = spans[i] as Span;
      return { past: start, live: end - start, chunks: chunks.map(piece), own: piece(own) };
    });
    const feeds = assemble(entries, shape, last?.feeds, length);
    this.last = { sequences, feeds };
    return feeds;
  }

  private async keysOf(sequence: Sequence, span: Span): Promise<PieceKeys> {
    const known = this.keys.get(sequence);
    if (known !== undefined) return known;
    const keys = await pieceKeys(sequence, span, sharedTokens(span, this.shape));
    this.keys.set(sequence, keys);
    return keys;
  }

  /** The pieces of a batch that are kept, each looked for once. */
  private async kept(keys: readonly PieceKeys[], spans: readonly Span[]): Promise<Map<string, Piece>> {
    const { shape } = this;
    const sizes = new Map<string, number>();
    keys.forEach(({ chunks, own }, i) => {
      for (const key of chunks) sizes.set(key, pastSize(chunkTokens, shape));
      sizes.set(own, ownSize(spans[i] as Span, shape));
    });
    const found = await Promise.all(
      [...sizes].map(async ([key, size]) => [key, await this.shelf.get(key, size)] as const),
    );
    return new Map(found.filter((pair): pair is [string, Piece] => pair[1] !== undefined));
  }

  /** Computes what is missing. A chunk that several examples have is the first one's for all. */
  private async complete(
    pieces: Map<string, Piece>,
    sequences: readonly Sequence[],
    keys: readonly PieceKeys[],
    spans: readonly Span[],
  ): Promise<void> {
    const { shape, shelf } = this;
    const missing = new Map<string, number>();
    keys.forEach(({ chunks, own }, i) => {
      if (!missing.has(own) && [...chunks, own].some((key) => !pieces.has(key))) missing.set(own, i);
    });
    if (missing.size === 0) return;
    const items = [...missing.values()];
    const add = async (key: string, make: () => Float32Array): Promise<void> => {
      if (!pieces.has(key)) pieces.set(key, await shelf.put(key, make()));
    };
    const lengths = items.map((i) => (sequences[i] as Sequence).inputIds.length);
    for (const group of groupsByLength(lengths, PASS_TOKENS)) {
      const own = group.map((n) => items[n] as number);
      const run = await this.compute(own.map((i) => sequences[i] as Sequence));
      for (const [b, i] of own.entries()) {
        const { chunks, own } = keys[i] as PieceKeys;
        for (const [c, key] of chunks.entries())
          await add(key, () => pastPiece(run, b, c * chunkTokens, (c + 1) * chunkTokens, shape));
        await add(own, () => ownPiece(run, b, spans[i] as Span, shape));
      }
    }
  }
}
