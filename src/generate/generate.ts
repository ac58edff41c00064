/** Token ids in, token ids out, one step at a time: prefill with edits, then decoding from the cache. */

import { UserError } from "../errors.js";
import { Random } from "../reft/random.js";
import type { KeyValueCache } from "./cache.js";
import { type EditOptions, editedTokens, editsOfPrompts, type RowEdits } from "./edits.js";
import { forbid } from "./forbidden.js";
import { checkPrompts, type GenerateOptions, type Settings, settingsFor } from "./options.js";
import { extend, readPrompts } from "./prefill.js";
import type { PrefixMemory } from "./prefix.js";
import { chooseToken } from "./sampling.js";
import { baseOf, type Generative } from "./sessions.js";
import { Decoder, type LiveRow } from "./step.js";

/** Why a row ended: an end token, the caller's own rule, or its length. */
export type TokenFinish = "eos" | "stop" | "length";

/** A new token of one row. */
export interface NewToken {
  readonly row: number;
  readonly id: number;
  /** Set on a row's last token. */
  readonly finish?: TokenFinish;
}

export interface TokenOptions extends GenerateOptions, EditOptions {
  /** Ends a row after this token; called once for each new token that does not end the row anyway. */
  readonly stopWhen?: (row: number, id: number) => boolean;
  /** Lets a single prompt go on from what an earlier call cached, and keeps this call's cache. */
  readonly memory?: PrefixMemory;
}

interface Row extends LiveRow {
  readonly row: number;
  readonly promptLength: number;
  readonly ids: number[];
  readonly seen: Set<number>;
  readonly random: Random;
}

/**
 * Generates for each prompt (token ids) until every row has ended; yields each step's new tokens. A row's tokens do not depend
 * on the other rows. An aborted signal ends it without a `finish`.
 *
 * @throws UserError for bad prompts, options or locations, before anything runs
 */
export async function* generateTokens(
  target: Generative,
  prompts: readonly (readonly number[])[],
  options: TokenOptions = {},
): AsyncGenerator<readonly NewToken[], void> {
  const model = baseOf(target);
  checkPrompts(model, prompts);
  if (options.memory !== undefined && prompts.length > 1)
    throw new UserError(`a memory serves one prompt, not ${prompts.length}.`, "Generate them one by one.");
  const settings = settingsFor(model, options, Math.max(...prompts.map((p) => p.length)));
  const edits = editsOfPrompts(target, prompts, options);
  const editsToken = editedTokens(options);
  const seeds = new Random(settings.seed);
  const rows: Row[] = prompts.map((prompt, row) => ({
    row,
    edits: edits[row] as RowEdits,
    promptLength: prompt.length,
    ids: [...prompt],
    seen: new Set(prompt),
    random: seeds.fork(`row ${row}`),
    logits: new Float32Array(0),
  }));
  if (options.signal?.aborted) return;
  const cache = await readRows(target, rows, settings, options);
  const [first] = rows as [Row];
  try {
    yield* decode(target, rows, cache, settings, options);
  } finally {
    if (options.memory === undefined) cache.dispose();
    else options.memory.keep(target, cache, first.ids, first.edits, first.promptLength, editsToken);
  }
}

async function readRows(
  target: Generative,
  rows: readonly Row[],
  settings: Settings,
  { memory, signal }: TokenOptions,
): Promise<KeyValueCache> {
  const [first] = rows as [Row];
  const before = memory?.take(target, first.ids, first.edits);
  if (before !== undefined) {
    try {
      first.logits = (await extend(target, before, first, signal)) ?? first.logits;
      return before;
    } catch (error) {
      before.dispose();
      throw error;
    }
  }
  const { cache, logits } = await readPrompts(target, rows, settings.maxNewTokens, signal);
  rows.forEach((r, n) => {
    r.logits = logits[n] ?? r.logits;
  });
  return cache;
}

async function* decode(
  target: Generative,
  rows: Row[],
  cache: KeyValueCache,
  settings: Settings,
  options: TokenOptions,
): AsyncGenerator<readonly NewToken[], void> {
  const single = options.memory !== undefined;
  const decoder = new Decoder(target, rows.length, settings.maxNewTokens, options);
  for (let made = 0; !options.signal?.aborted; made++) {
    const step = rows.map((r) => nextToken(r, settings, options));
    yield step;
    for (let n = rows.length - 1; n >= 0; n--) {
      if (step[n]?.finish === undefined) continue;
      rows[n] = rows.at(-1) as Row;
      rows.pop();
      if (!single) cache.remove(n);
    }
    if (rows.length === 0 || options.signal?.aborted) return;
    await decoder.step(rows, cache, made);
  }
}

/** Chooses a row's next token from its logits. */
function nextToken(r: Row, settings: Settings, options: TokenOptions): NewToken {
  const made = r.ids.length - r.promptLength;
  forbid(r.logits, r.ids, made, settings);
  const id = chooseToken(r.logits, r.seen, settings.sampling, r.random);
  r.ids.push(id);
  r.seen.add(id);
  if (settings.eosTokenIds.has(id)) return { row: r.row, id, finish: "eos" };
  if (options.stopWhen?.(r.row, id) === true) return { row: r.row, id, finish: "stop" };
  return made + 1 >= settings.maxNewTokens ? { row: r.row, id, finish: "length" } : { row: r.row, id };
}
