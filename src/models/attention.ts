/** Causal attention of live tokens over themselves and a cached past. */

import { type Dim, divide, minus, plus, times } from "../graph/dim.js";
import { constant, scalar, type Tensor } from "../graph/tensor.js";
import {
  add,
  and,
  concat,
  expand,
  lessOrEqual,
  matMul,
  recomputed,
  recomputedInParts,
  reshape,
  slice,
  softmax,
  sub,
  transpose,
  where,
} from "../ops/index.js";
import type { TapPlace } from "./site.js";

/** Keys and values [B, KV, P, hd]: a token's numbers lie together, so that a decoding step reads its past from end to end. */
export interface KeyValues {
  readonly keys: Tensor;
  readonly values: Tensor;
}

export interface HeadShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Added to scores that must not count. Large, yet far from overflow when a score is added to it. */
export const masked = -1e30;

/** In stretches, T queries compute (n + 1) / 2n of T² scores: 5/8 in four, 9/16 in eight, for twice as many products. */
const STRETCHES = 4;
/** Shorter texts gain less from it than so many more products cost. */
const MANY_TOKENS = 256;

/** In how many stretches so many tokens a row attend, where that is theirs to choose: it pads them to a multiple. */
export function queryPartsFor(tokens: number): number {
  return tokens < MANY_TOKENS ? 1 : STRETCHES;
}

/** How the queries of a call come to their keys. */
export interface QueryShape {
  /** How many query heads share the mask of a key head: `maskGroups`. */
  readonly groups: number;
  readonly window: number | undefined;
  /** In how many stretches queries come. Default 1. */
  readonly parts?: number | undefined;
}

/**
 * The additive masks [B, 1, G·T/n, S], one a stretch of queries: 0 where key j may be seen by query i (keyPosition ≤ position,
 * and within the window), repeated for the G query heads that share a key head. Padding and unfilled cache have a key position
 * beyond all queries. A stretch of several has the keys up to its own end and no later ones, which it would not see.
 */
export function causalMasks(
  positions: Tensor,
  keyPositions: Tensor,
  { groups, window, parts = 1 }: QueryShape,
): Tensor[] {
  if (parts === 1) return [causalMask(positions, keyPositions, groups, window)];
  const stretch = divide(positions.dim(1), parts);
  const past = minus(keyPositions.dim(1), positions.dim(1));
  if (past === undefined) throw new Error("internal: fewer keys than queries");
  return Array.from({ length: parts }, (_, i) => {
    const end = times(i + 1, stretch);
    const queries = slice(positions, { axis: 1, start: times(i, stretch), end });
    const keys = slice(keyPositions, { axis: 1, start: 0, end: plus(past, end) });
    return causalMask(queries, keys, groups, window);
  });
}

function causalMask(positions: Tensor, keyPositions: Tensor, groups: number, window: number | undefined): Tensor {
  const [b, t] = [positions.dim(0), positions.dim(1)];
  const s = keyPositions.dim(1);
  const query = reshape(positions, { shape: [b, t, 1] });
  const key = reshape(keyPositions, { shape: [b, 1, s] });
  const past = lessOrEqual(key, query);
  const seen =
    window === undefined ? past : and(past, lessOrEqual(sub(query, constant(Int32Array.of(window - 1), [])), key));
  const mask = reshape(where(seen, scalar(0), scalar(masked)), { shape: [b, 1, t, s] });
  if (groups === 1) return mask;
  return reshape(expand(mask, { shape: [b, groups, t, s] }), { shape: [b, 1, times(groups, t), s] });
}

/**
 * Taps the rows of queries [B·T, H·hd], keys and values [B·T, KV·hd]. Where one is edited, the three go on as parts of one
 * tensor. Then what stays frozen beside the edit meets it as rows, the form in which frozen work is kept between steps;
 * otherwise heads would, or attention's weights, whose size grows with the square of the length.
 */
export function tapProjections(tap: TapPlace, q: Tensor, k: Tensor, v: Tensor): [q: Tensor, k: Tensor, v: Tensor] {
  const tapped = [tap("query_output", q), tap("key_output", k), tap("value_output", v)] as const;
  if (tapped[0] === q && tapped[1] === k && tapped[2] === v) return [q, k, v];
  const joined = concat(...tapped, { axis: 1 });
  const [endQ, endK] = [Number(q.dim(1)), Number(q.dim(1)) + Number(k.dim(1))];
  const part = (start: number, end: number): Tensor => slice(joined, { axis: 1, start, end });
  return [part(0, endQ), part(endQ, endK), part(endK, Number(joined.dim(1)))];
}

/** [B·T, H·hd] → [B, T, H, hd] */
export function splitHeads(x: Tensor, b: Dim, t: Dim, heads: number, headDim: number): Tensor {
  return reshape(x, { shape: [b, t, heads, headDim] });
}

export interface AttendOptions {
  readonly past?: KeyValues | undefined;
  /** For long texts, in how many parts heads come: one part's scores exist at a time. One of `headPartsOf`; default 1. */
  readonly headParts?: number | undefined;
}

/** In how many parts the heads may come, fewest first: each part has all of its query heads' key heads, or shares one. */
export function headPartsOf({ heads, kvHeads }: Omit<HeadShape, "headDim">): number[] {
  const parts = Array.from({ length: heads }, (_, i) => i + 1).filter((n) => heads % n === 0);
  // Several key heads with several query heads each would want groups within a part.
  return heads === kvHeads ? parts : parts.filter((n) => n === 1 || n % kvHeads === 0);
}

/** For how many query heads `causalMask` repeats the mask: in parts, heads are not joined, and one mask serves all. */
export function maskGroups({ heads, kvHeads }: Omit<HeadShape, "headDim">, headParts = 1): number {
  return headParts === 1 ? heads / kvHeads : 1;
}

/**
 * softmax(q·Kᵀ + mask)·V. q [B, T, H, hd], already scaled, k, v [B, T, KV, hd], a mask for all queries or one for each stretch of
 * them; returns rows [B·T, H·hd] and the live tokens' keys and values. The past is multiplied where it lies: concatenating
 * scores, not caches. Attention weights, which grow with the square of the length, are not kept for the derivative but computed
 * again there.
 */
export function attend(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  masks: readonly Tensor[],
  shape: HeadShape,
  { past, headParts = 1 }: AttendOptions = {},
): { rows: Tensor; live: KeyValues } {
  const [b, t] = [q.dim(0), q.dim(1)];
  const { heads, kvHeads, headDim } = shape;
  const queries = transpose(q, { axes: [0, 2, 1, 3] });
  const [keys, values] = [k, v].map((x) => transpose(x, { axes: [0, 2, 1, 3] })) as [Tensor, Tensor];
  const stretch = divide(t, masks.length);
  const mixed = masks.map((mask, i) => {
    const end = times(i + 1, stretch);
    const seen = (x: Tensor): Tensor => (end === t ? x : slice(x, { axis: 2, start: 0, end }));
    const own = { keys: seen(keys), values: seen(values) };
    const query = masks.length === 1 ? queries : slice(queries, { axis: 2, start: times(i, stretch), end });
    return mixHeads(query, own, past, mask, kvHeads, headParts);
  });
  const all = mixed.length === 1 ? (mixed[0] as Tensor) : concat(...mixed, { axis: 2 });
  const perHead = transpose(all, { axes: [0, 2, 1, 3] });
  return { rows: reshape(perHead, { shape: [times(b, t), heads * headDim] }), live: { keys, values } };
}

/** The mixture for all heads [B, H, T, hd], in parts or at once. */
function mixHeads(
  queries: Tensor,
  own: KeyValues,
  past: KeyValues | undefined,
  mask: Tensor,
  kvHeads: number,
  headParts: number,
): Tensor {
  // The past is frozen where there is one. It is handed over where heads come in parts, otherwise used as it lies.
  const mix: Mix = (query, keys, values, pastKeys = past?.keys, pastValues = past?.values) => {
    const looksBack = pastKeys !== undefined && pastValues !== undefined;
    const ofOwn = matMul(query, keys, { transB: true });
    const scores = looksBack ? concat(matMul(query, pastKeys, { transB: true }), ofOwn, { axis: 3 }) : ofOwn;
    const weights = softmax(add(scores, mask));
    return looksBack ? mixBoth(weights, pastValues, values) : matMul(weights, values);
  };
  const f = mix as (...inputs: readonly Tensor[]) => Tensor;
  const inputs = past === undefined ? [] : [past.keys, past.values];
  return headParts > 1
    ? recomputedInParts(f, headParts, queries, own.keys, own.values, ...inputs)
    : inGroups((grouped) => recomputed(f, grouped, own.keys, own.values), queries, kvHeads);
}

type Mix = (query: Tensor, keys: Tensor, values: Tensor, pastKeys?: Tensor, pastValues?: Tensor) => Tensor;

/** Queries [B, H, T, hd] that share a key head, as one matrix [B, KV, G·T, hd], for `mix` and back. */
function inGroups(mix: (queries: Tensor) => Tensor, queries: Tensor, kvHeads: number): Tensor {
  const [b, heads, t, headDim] = queries.shape as [Dim, number, Dim, Dim];
  return reshape(mix(reshape(queries, { shape: [b, kvHeads, times(heads / kvHeads, t), headDim] })), {
    shape: queries.shape,
  });
}

function mixBoth(weights: Tensor, past: Tensor, values: Tensor): Tensor {
  const [p, t] = [past.dim(2), values.dim(2)];
  const ofPast = matMul(slice(weights, { axis: 3, start: 0, end: p }), past);
  return add(ofPast, matMul(slice(weights, { axis: 3, start: p, end: plus(p, t) }), values));
}
