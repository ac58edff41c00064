/** The layout of frozen work: pieces of an example taken out of a run of the frozen graph, and put together as a batch's feeds. */

import type { Span } from "../data/collate.js";
import { pastKeys, pastValues } from "../models/family.js";
import type { HostTensor, LentTensor } from "../runtime/runtime.js";
import { chunkTokens } from "./frozen-keys.js";
import type { Piece } from "./frozen-store.js";
import { type CutStep, frozenInput } from "./loss-graph.js";

/** Sizes of one token's part of frozen work. */
export interface FrozenShape {
  /** Widths of the cut's tensors. */
  readonly widths: readonly number[];
  readonly pastLayers: readonly number[];
  readonly kvHeads: number;
  readonly headDim: number;
  /** Whether a token's keys and values depend on nothing but the tokens up to it, so that equal beginnings are kept once. */
  readonly shares: boolean;
}

/** An example's share of a batch: `past` tokens before the live ones. */
export interface Entry {
  readonly past: number;
  readonly live: number;
  /** Of `chunkTokens` tokens of the past each: for each layer keys and values [KV, n, hd]. */
  readonly chunks: readonly Piece[];
  /** Rows [live, width] of each cut tensor, then the rest of the past like a chunk. */
  readonly own: Piece;
}

type Model = {
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rope?: { readonly kind: string } | undefined;
};

export function frozenShape({ widths, pastLayers }: CutStep, bidirectional: boolean, config: Model): FrozenShape {
  const { kvHeads, headDim, rope } = config;
  return { widths, pastLayers, kvHeads, headDim, shares: !bidirectional && (rope?.kind ?? "fixed") === "fixed" };
}

/** How many tokens of an example's past are kept in chunks. */
export function sharedTokens({ start }: Span, { shares, pastLayers }: FrozenShape): number {
  return shares && pastLayers.length > 0 ? start - (start % chunkTokens) : 0;
}

/** Numbers that the past of some tokens has. */
export function pastSize(tokens: number, { pastLayers, kvHeads, headDim }: FrozenShape): number {
  return tokens * pastLayers.length * 2 * kvHeads * headDim;
}

/** Numbers of an example's own piece. */
export function ownSize(span: Span, shape: FrozenShape): number {
  const width = shape.widths.reduce((a, b) => a + b, 0);
  return (span.end - span.start) * width + pastSize(span.start - sharedTokens(span, shape), shape);
}

/** A run of the frozen graph over whole examples of T tokens. */
export interface FrozenRun {
  readonly outputs: Readonly<Record<string, HostTensor>>;
  readonly length: number;
}

/** The past of example b's tokens from … to − 1. */
export function pastPiece(run: FrozenRun, b: number, from: number, to: number, shape: FrozenShape): Float32Array {
  return joined(pastParts(run, b, from, to, shape), pastSize(to - from, shape));
}

/** The own piece of the run's example b. */
export function ownPiece(run: FrozenRun, b: number, span: Span, shape: FrozenShape): Float32Array {
  const rows = shape.widths.map((width, i) =>
    floats(run, frozenInput(i)).subarray((b * run.length + span.start) * width, (b * run.length + span.end) * width),
  );
  const past = pastParts(run, b, sharedTokens(span, shape), span.start, shape);
  return joined([...rows, ...past], ownSize(span, shape));
}

function pastParts(run: FrozenRun, b: number, from: number, to: number, shape: FrozenShape): Float32Array[] {
  if (from === to) return [];
  const { length } = run;
  const { kvHeads, headDim, pastLayers } = shape;
  const heads = Array.from({ length: kvHeads }, (_, i) => (b * kvHeads + i) * length);
  return pastLayers.flatMap((layer) =>
    [pastKeys(layer), pastValues(layer)].flatMap((name) => {
      const all = floats(run, name);
      return heads.map((at) => all.subarray((at + from) * headDim, (at + to) * headDim));
    }),
  );
}

function floats({ outputs }: FrozenRun, name: string): Float32Array {
  return outputs[name]?.data as Float32Array;
}

function joined(parts: readonly Float32Array[], size: number): Float32Array {
  const all = new Float32Array(size);
  let at = 0;
  for (const p of parts) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}

/** Feeds of a batch by name. */
export type FrozenFeeds = Record<string, LentTensor>;

/**
 * The feeds of a batch, from its entries: `frozen.<i>`, and where any example has a past, `past.keys.<l>`, `past.values.<l>`.
 *
 * @param old feeds whose memory is used again where it is large enough
 */
export function assemble(
  entries: readonly Entry[],
  shape: FrozenShape,
  old: FrozenFeeds = {},
  length: number = Math.max(...entries.map((e) => e.live)),
): FrozenFeeds {
  const past = Math.max(...entries.map((e) => e.past));
  const [b, { kvHeads, headDim }] = [entries.length, shape];
  const feeds: FrozenFeeds = {};
  const target = (name: string, dims: readonly number[]): Target => {
    const data = room(
      old[name],
      dims.reduce((x, y) => x * y, 1),
    );
    feeds[name] = { shape: dims, data, lend: true };
    return { values: data, bits: new Uint32Array(data.buffer, data.byteOffset, data.length) };
  };
  const rows = shape.widths.map((width, i) => target(frozenInput(i), [b * length, width]));
  const pasts = (past === 0 ? [] : shape.pastLayers)
    .flatMap((layer) => [pastKeys(layer), pastValues(layer)])
    .map((name) => target(name, [b, kvHeads, past, headDim]));
  entries.forEach((entry, n) => {
    let at = 0;
    for (const [i, width] of shape.widths.entries()) {
      copyPadded(rows[i] as Target, n * length * width, entry.own, at, entry.live * width, length * width);
      at += entry.live * width;
    }
    const stretches = stretchesOf(entry, at);
    pasts.forEach((to, index) => {
      for (const stretch of stretches) copyPast(to, stretch, { index, row: n, past }, shape);
      if (entry.past === past) return;
      for (let i = n * kvHeads; i < (n + 1) * kvHeads; i++)
        to.values.fill(0, (i * past + entry.past) * headDim, (i + 1) * past * headDim);
    });
  });
  return feeds;
}

/** A tensor that is put together: its numbers, and the same memory as bits. */
interface Target {
  readonly values: Float32Array;
  readonly bits: Uint32Array;
}

/** Keys and values of some tokens of a past: `tokens` of them from the token `first` on, from a place of a piece on. */
interface Stretch {
  readonly piece: Piece;
  readonly at: number;
  readonly first: number;
  readonly tokens: number;
}

function stretchesOf({ chunks, own, past }: Entry, at: number): Stretch[] {
  const shared = chunks.map((piece, i): Stretch => ({ piece, at: 0, first: i * chunkTokens, tokens: chunkTokens }));
  const first = chunks.length * chunkTokens;
  return past === first ? shared : [...shared, { piece: own, at, first, tokens: past - first }];
}

/** To a batch's row `row`, which has room for `past` tokens; `index` counts a layer's keys, its values, the next layer's keys … */
function copyPast(
  to: Target,
  { piece, at, first, tokens }: Stretch,
  { index, row, past }: { readonly index: number; readonly row: number; readonly past: number },
  { kvHeads, headDim }: FrozenShape,
): void {
  const size = tokens * headDim;
  for (let h = 0; h < kvHeads; h++)
    copy(to, ((row * kvHeads + h) * past + first) * headDim, piece, at + (index * kvHeads + h) * size, size);
}

/** Below this many numbers a loop is faster than a call. */
const shortCopy = 64;

function copy(to: Target, toAt: number, from: Piece, at: number, count: number): void {
  if (from instanceof Uint16Array) for (let i = 0; i < count; i++) to.bits[toAt + i] = (from[at + i] as number) << 16;
  else if (count > shortCopy) to.values.set(from.subarray(at, at + count), toAt);
  else for (let i = 0; i < count; i++) to.values[toAt + i] = from[at + i] as number;
}

function copyPadded(to: Target, toAt: number, from: Piece, at: number, count: number, whole: number): void {
  copy(to, toAt, from, at, count);
  to.values.fill(0, toAt + count, toAt + whole);
}

/** An array of a size, in the memory of an old one where that is large enough and came back from its run. */
function room(old: LentTensor | undefined, size: number): Float32Array<ArrayBuffer> {
  const buffer = old?.data.buffer as ArrayBuffer | undefined;
  return buffer !== undefined && buffer.byteLength >= size * 4
    ? new Float32Array(buffer, 0, size)
    : new Float32Array(size);
}
