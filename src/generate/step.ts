/** One decoding step: each row's newest token through the graph, edited or not. */

import { ReftModel } from "../reft/reft-model.js";
import type { HostTensor } from "../runtime/runtime.js";
import type { KeyValueCache } from "./cache.js";
import { type EditOptions, editedTokens, everyRow, everyRowFeeds, type RowEdits } from "./edits.js";
import { rowOf } from "./prefill.js";
import { baseOf, type GenerationSessions, type Generative, sessionsOf } from "./sessions.js";

/** A text that is being written; its place in the list is its row of the cache. */
export interface LiveRow {
  /** Prompt and new tokens. */
  readonly ids: readonly number[];
  readonly edits: RowEdits;
  /** Of the token after them. */
  logits: Float32Array;
}

export class Decoder {
  readonly #began: number;
  readonly #most: number;
  readonly #edits: (token: number) => boolean;
  readonly #base: GenerationSessions;
  readonly #target: Generative;
  #feeds: ((rows: readonly RowEdits[]) => Record<string, HostTensor>) | undefined;

  /**
   * @param began rows with which the call begins
   * @param most tokens this call may decode
   */
  constructor(target: Generative, began: number, most: number, options: EditOptions) {
    this.#target = target;
    this.#began = began;
    this.#most = most;
    this.#edits = editedTokens(options);
    this.#base = sessionsOf(baseOf(target));
  }

  /** Feeds each row's newest token, which is new token number `made`: logits come back, keys and values go into the cache. */
  async step(rows: readonly LiveRow[], cache: KeyValueCache, made: number): Promise<void> {
    const b = rows.length;
    const { sessions, feeds } = this.#graphs(rows, made);
    const session = await sessions.decoding(this.#began, this.#most);
    cache.reserve(Math.max(...cache.lengths) + 1);
    const tokens = {
      ids: { shape: [b, 1], data: BigInt64Array.from(rows, (r) => BigInt(r.ids.at(-1) as number)) },
      positions: { shape: [b, 1], data: Int32Array.from(cache.lengths) },
      keyPositions: cache.keyPositions(1),
      last: everyRow(b),
    };
    const taken = rows.map((_, n) => ({ row: n, from: n, count: 1 }));
    const { logits } = await cache.run(session, { ...tokens, ...cache.feeds(), ...feeds }, 1, taken);
    rows.forEach((r, n) => {
      r.logits = rowOf(logits as HostTensor, n);
    });
  }

  /** Tokens that are not edited go through the model under the edits: they cost what they cost without. */
  #graphs(rows: readonly LiveRow[], made: number): { sessions: GenerationSessions; feeds: Record<string, HostTensor> } {
    const target = this.#target;
    if (!(target instanceof ReftModel) || !this.#edits(made)) return { sessions: this.#base, feeds: {} };
    this.#feeds ??= everyRowFeeds(target);
    const feeds = this.#feeds(rows.map((r) => r.edits));
    return { sessions: sessionsOf(target), feeds };
  }
}
