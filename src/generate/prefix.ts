/** What a conversation keeps between turns: the cache, and what is needed to tell how much of it still holds. */

import { ReftModel } from "../reft/reft-model.js";
import type { KeyValueCache } from "./cache.js";
import type { RowEdit, RowEdits } from "./edits.js";
import { baseOf, type Generative } from "./sessions.js";

interface Kept {
  readonly target: Generative;
  readonly cache: KeyValueCache;
  /** The tokens in the cache. */
  readonly ids: readonly number[];
  /** For each token, which edits changed it, and with which factors: "0,2", "0·1·0", or "". */
  readonly marks: readonly string[];
  /** The edits' values at that time. */
  readonly values: readonly Float32Array[];
}

/** For each of n tokens, the edits that change it. */
function marksOf(edits: RowEdits, n: number): string[] {
  const marks: string[][] = Array.from({ length: n }, () => []);
  edits.forEach((edit, i) => {
    for (const at of edit.at) marks[at]?.push(markOf(edit, i));
  });
  return marks.map((m) => m.join());
}

function markOf({ factors }: RowEdit, i: number): string {
  return factors === undefined ? `${i}` : `${i}·${factors.join("·")}`;
}

function valuesOf(target: Generative): Float32Array[] {
  return target instanceof ReftModel ? [...target.parameters.values()].map((p) => p.value().slice()) : [];
}

function sameValues(a: readonly Float32Array[], b: readonly Float32Array[]): boolean {
  return a.length === b.length && a.every((x, i) => x.length === b[i]?.length && x.every((v, j) => v === b[i]?.[j]));
}

/** How many tokens of the prompt `ids` the kept cache still has. */
function stillHolds(kept: Kept, target: Generative, ids: readonly number[], edits: RowEdits): number {
  const { rope } = baseOf(target).config;
  // Frequencies that change with the length make old keys depend on how long the text was then.
  if (kept.target !== target || rope?.kind === "dynamic" || rope?.kind === "long") return 0;
  if (!sameValues(kept.values, valuesOf(target))) return 0;
  const marks = marksOf(edits, ids.length);
  // The last token is always computed: its logits are wanted.
  const most = Math.min(ids.length - 1, kept.ids.length);
  let same = 0;
  while (same < most && ids[same] === kept.ids[same] && marks[same] === kept.marks[same]) same++;
  return same;
}

/**
 * The cache of one row, kept from call to call. A cached token may be used again where it and all before it are the same
 * tokens, changed by the same edits with the same values: an edit at the last prompt token makes that token and what follows it
 * another past than the next turn's, where it is not edited.
 */
export class PrefixMemory {
  #kept: Kept | undefined;
  /** Tokens that the last call did not have to compute again. */
  reused = 0;

  /**
   * Hands the kept cache over, cut to what still holds for the prompt `ids`; undefined where nothing does. The memory is empty
   * until `keep`, so that a call that fails half-way leaves nothing wrong behind.
   */
  take(target: Generative, ids: readonly number[], edits: RowEdits): KeyValueCache | undefined {
    const kept = this.#kept;
    this.#kept = undefined;
    this.reused = 0;
    if (kept === undefined) return undefined;
    this.reused = stillHolds(kept, target, ids, edits);
    if (this.reused === 0) {
      kept.cache.dispose();
      return undefined;
    }
    kept.cache.truncate(0, this.reused);
    return kept.cache;
  }

  /**
   * Keeps a cache after a call.
   *
   * @param ids prompt and generated tokens; as many as the cache holds count
   * @param generatedEdited whether a token after the prompt, by its number from 0, was edited by every edit
   */
  keep(
    target: Generative,
    cache: KeyValueCache,
    ids: readonly number[],
    edits: RowEdits,
    promptLength: number,
    generatedEdited: (token: number) => boolean,
  ): void {
    if (!cache.intact) {
      cache.dispose();
      return;
    }
    // Two calls at once on one memory: the later one stays.
    this.#kept?.cache.dispose();
    const length = cache.lengths[0] as number;
    const every = edits.map(markOf).join();
    const marks = marksOf(edits, length).map((mark, i) =>
      i >= promptLength && generatedEdited(i - promptLength) ? every : mark,
    );
    this.#kept = { target, cache, ids: ids.slice(0, length), marks, values: valuesOf(target) };
  }
}
