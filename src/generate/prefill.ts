/** The prompt's pass: fills the cache and gives the logits of each row's next token. */

import { PADDING_POSITION } from "../data/collate.js";
import { groupsByLength } from "../data/groups.js";
import { queryPartsFor } from "../models/attention.js";
import type { HostTensor } from "../runtime/runtime.js";
import { KeyValueCache } from "./cache.js";
import { editFeeds, type RowEdits } from "./edits.js";
import { baseOf, type Generative, sessionsOf } from "./sessions.js";

/** A prompt on its way into the cache's row of the same number. */
export interface PromptRow {
  readonly ids: readonly number[];
  readonly edits: RowEdits;
}

/**
 * Tokens of one pass, padding included, and of one row in a pass: activations then fit a processor's caches and scores stay
 * small, and more tokens at once gain nothing.
 */
const PASS_TOKENS = 1024;

/** Feeds that prefill and extension share: rows of ids from `start` on, padded on the right to one length in whole stretches. */
function tokenFeeds(
  ids: readonly (readonly number[])[],
  start: number,
): Record<string, HostTensor> & { ids: HostTensor } {
  const b = ids.length;
  const longest = Math.max(...ids.map((row) => row.length));
  const parts = queryPartsFor(longest);
  const t = Math.ceil(longest / parts) * parts;
  const feeds = {
    ids: { shape: [b, t], data: new BigInt64Array(b * t) },
    positions: { shape: [b, t], data: new Int32Array(b * t) },
    last: { shape: [b], data: new BigInt64Array(b) },
  };
  ids.forEach((row, n) => {
    row.forEach((id, i) => {
      feeds.ids.data[n * t + i] = BigInt(id);
      feeds.positions.data[n * t + i] = start + i;
    });
    feeds.last.data[n] = BigInt(n * t + row.length - 1);
  });
  return feeds;
}

/** A pass over prompts without a past, into the empty rows `places` of the cache; returns logits [B, V]. */
async function firstPass(
  target: Generative,
  cache: KeyValueCache,
  rows: readonly PromptRow[],
  places: readonly number[],
): Promise<HostTensor> {
  const feeds = tokenFeeds(
    rows.map((r) => r.ids),
    0,
  );
  const [b, t] = feeds.ids.shape as [number, number];
  const keyPositions = new Int32Array(b * t).fill(PADDING_POSITION);
  rows.forEach(({ ids }, n) => {
    for (let i = 0; i < ids.length; i++) keyPositions[n * t + i] = i;
  });
  const edits = editFeeds(
    target,
    rows.map((r) => ({ edits: r.edits, start: 0 })),
    t,
  );
  const session = await sessionsOf(target).get("prefill", queryPartsFor(t));
  const all = { ...feeds, ...edits, keyPositions: { shape: [b, t], data: keyPositions } };
  const taken = rows.map(({ ids }, from) => ({ row: places[from] as number, from, count: ids.length }));
  return (await cache.run(session, all, t, taken)).logits as HostTensor;
}

/** A pass over a row's tokens from what the cache holds up to `end`; returns logits [1, V]. */
async function nextPass(target: Generative, cache: KeyValueCache, row: PromptRow, end: number): Promise<HostTensor> {
  const start = cache.lengths[0] as number;
  const feeds = tokenFeeds([row.ids.slice(start, end)], start);
  const [, t] = feeds.ids.shape as [number, number];
  const edits = editFeeds(target, [{ edits: row.edits, start }], t);
  const session = await sessionsOf(target).get("extend", queryPartsFor(t));
  cache.reserve(end);
  const all = { ...feeds, ...edits, ...cache.feeds(), keyPositions: cache.keyPositions(t) };
  return (await cache.run(session, all, t, [{ row: 0, from: 0, count: end - start }])).logits as HostTensor;
}

/** Angles that depend on the length so far want the whole prompt in one pass. */
function pieceOf(target: Generative): number {
  return (baseOf(target).config.rope?.kind ?? "fixed") === "fixed" ? PASS_TOKENS : Number.POSITIVE_INFINITY;
}

/**
 * Appends the rest of one prompt to a cache of one row, which may hold its beginning already, piece by piece; returns the last
 * token's logits [V].
 *
 * @param row the whole prompt
 */
export async function extend(
  target: Generative,
  cache: KeyValueCache,
  row: PromptRow,
  signal?: AbortSignal,
): Promise<Float32Array | undefined> {
  let logits: Float32Array | undefined;
  for (let start = cache.lengths[0] as number; start < row.ids.length && !signal?.aborted; ) {
    const end = Math.min(row.ids.length, start + pieceOf(target));
    const beginning = { ids: row.ids.slice(0, end), edits: row.edits };
    if (start === 0) cache.reserve(end);
    const pass = start === 0 ? firstPass(target, cache, [beginning], [0]) : nextPass(target, cache, row, end);
    logits = rowOf(await pass, 0);
    start = end;
  }
  return logits;
}

/** Fills the empty cache; returns logits [V] of each row's last token, in the order of `rows`; fewer when aborted. */
async function prefill(
  target: Generative,
  cache: KeyValueCache,
  rows: readonly PromptRow[],
  signal?: AbortSignal,
): Promise<(Float32Array | undefined)[]> {
  const logits: (Float32Array | undefined)[] = [];
  const longest = pieceOf(target);
  const lengths = rows.map((row) => row.ids.length);
  for (const group of groupsByLength(lengths, PASS_TOKENS)) {
    if (signal?.aborted) break;
    const own = group.map((n) => rows[n] as PromptRow);
    const [first] = own as [PromptRow];
    if (first.ids.length > longest) {
      const [row] = group as [number];
      logits[row] =
        rows.length === 1
          ? await extend(target, cache, first, signal)
          : await readAlone(target, cache, row, first, signal);
      continue;
    }
    const found = await firstPass(target, cache, own, group);
    group.forEach((n, from) => {
      logits[n] = rowOf(found, from);
    });
  }
  return logits;
}

/** Reads a long prompt in a cache of its own, then moves it to the row `row` of the other. */
async function readAlone(
  target: Generative,
  cache: KeyValueCache,
  row: number,
  prompt: PromptRow,
  signal: AbortSignal | undefined,
): Promise<Float32Array | undefined> {
  const alone = new KeyValueCache(baseOf(target).runtime, cache.shape, 1, prompt.ids.length);
  try {
    const logits = await extend(target, alone, prompt, signal);
    cache.adopt(row, alone);
    return logits;
  } finally {
    alone.dispose();
  }
}

/** Reads all prompts into a new cache with room for the first of `most` new tokens, so that it does not grow at once. */
export async function readPrompts(
  target: Generative,
  rows: readonly PromptRow[],
  most: number,
  signal?: AbortSignal,
): Promise<{ cache: KeyValueCache; logits: (Float32Array | undefined)[] }> {
  const capacity = Math.max(...rows.map((r) => r.ids.length)) + Math.min(most, 64);
  const { runtime, config } = baseOf(target);
  const cache = new KeyValueCache(runtime, config, rows.length, capacity);
  try {
    return { cache, logits: await prefill(target, cache, rows, signal) };
  } catch (error) {
    cache.dispose();
    throw error;
  }
}

/** Row `n` of a matrix. */
export function rowOf({ shape, data }: HostTensor, n: number): Float32Array {
  const width = shape[1] as number;
  return (data as Float32Array).subarray(n * width, (n + 1) * width);
}
