/** Beam search: several texts of each prompt grow side by side, and the best that end are kept. As transformers searches, or draws. */

import { Random } from "../reft/random.js";
import type { KeyValueCache } from "./cache.js";
import { type EditOptions, editsOfPrompts, type RowEdits } from "./edits.js";
import { forbid } from "./forbidden.js";
import type { TokenFinish } from "./generate.js";
import {
  asksToDraw,
  type BeamOptions,
  beamsFor,
  checkPrompts,
  type GenerateOptions,
  type Settings,
  settingsFor,
} from "./options.js";
import { readPrompts } from "./prefill.js";
import { candidates, logProbabilities, penaliseRepetition, type SamplingSettings } from "./sampling.js";
import { baseOf, type Generative } from "./sessions.js";
import { Decoder, type LiveRow } from "./step.js";

export interface BeamSearchOptions extends GenerateOptions, BeamOptions, EditOptions {
  /** Ends a text after its last token, by the new tokens of prompt number `row`. */
  readonly stopWhen?: (row: number, ids: readonly number[]) => boolean;
}

/** A text that was found. */
export interface BeamText {
  /** Its new tokens, with the end token. */
  readonly ids: readonly number[];
  /** Log-probability / length^lengthPenalty. */
  readonly score: number;
  /** Missing where the signal ended the search. */
  readonly finish?: TokenFinish;
}

/** A text that grows. */
interface Beam extends LiveRow {
  /** The sum of its tokens' log-probabilities. */
  readonly score: number;
}

/** Token `id` after beam number `from`. */
interface Candidate {
  readonly from: number;
  readonly id: number;
  readonly score: number;
}

/** The tokens that filters leave after a beam, with their scores: what was, and log-probability / temperature. */
function filtered(
  logs: Float32Array,
  before: number,
  from: number,
  least: number,
  sampling: SamplingSettings,
): Candidate[] {
  return Array.from(candidates(logs, sampling, least).ids, (id) => {
    const own = Math.fround((logs[id] as number) / Math.fround(sampling.temperature));
    return { from, id, score: Math.fround(own + before) };
  }).filter(({ score }) => score > -Infinity);
}

/**
 * `count` of the candidates, drawn by e^score without putting any back, in the order in which they are drawn: the largest of
 * score − ln(−ln u) are such a draw (Kool and others, arXiv 1903.06059).
 */
function drawn(all: readonly Candidate[], count: number, random: Random): Candidate[] {
  const keyed = all.map((candidate) => ({ candidate, key: candidate.score - Math.log(-Math.log(random.uniform())) }));
  keyed.sort((a, b) => b.key - a.key);
  return keyed.slice(0, count).map(({ candidate }) => candidate);
}

/** Orders candidates so that one after each beam takes that beam's place: what stays in place is not copied in the cache. */
function inPlace<T extends Candidate>(candidates: readonly T[]): T[] {
  const placed: (T | undefined)[] = candidates.map((_, place) => candidates.find(({ from }) => from === place));
  const others = candidates.filter((candidate) => !placed.includes(candidate));
  return placed.map((candidate) => candidate ?? (others.shift() as T));
}

/** The search of one prompt. */
class Search {
  beams: Beam[];
  done = false;
  readonly #row: number;
  readonly #promptLength: number;
  readonly #settings: Settings;
  readonly #options: Required<BeamOptions>;
  readonly #stopWhen: BeamSearchOptions["stopWhen"];
  readonly #random: Random;
  /** The best first, at most as many as beams. */
  #found: BeamText[] = [];

  constructor(row: number, beam: Beam, settings: Settings, options: BeamSearchOptions & Required<BeamOptions>) {
    this.#row = row;
    this.#promptLength = beam.ids.length;
    this.#settings = settings;
    this.#options = options;
    this.#stopWhen = options.stopWhen;
    this.#random = new Random(settings.seed).fork(`row ${row}`);
    // transformers starts with equal beams, all but one at −10⁹: the same as one.
    this.beams = [beam];
  }

  /** Gives each beam its next token; returns which beam each of the new ones goes on from. `made`: new tokens so far. */
  grow(made: number): number[] {
    const { numBeams } = this.#options;
    const best = this.#candidates(made).map((candidate, rank) => {
      const ids = [...(this.beams[candidate.from] as Beam).ids, candidate.id];
      return { ...candidate, ids, rank, finish: this.#finishOf(ids, made + 1) };
    });
    const length = (made + 1) ** this.#options.lengthPenalty;
    // What ends below the first candidates is not found: those below are there to have beams to go on with.
    for (const { rank, ids, score, finish } of best)
      if (finish !== undefined && rank < numBeams)
        this.#found.push({ ids: ids.slice(this.#promptLength), score: Math.fround(score / length), finish });
    this.#found = this.#found.sort((a, b) => b.score - a.score).slice(0, numBeams);
    const going = best.filter(({ finish }) => finish === undefined).sort((a, b) => b.score - a.score);
    const growing = inPlace(going.slice(0, numBeams));
    const before = this.beams;
    this.beams = growing.map(({ from, ids, score }) => ({ ...(before[from] as Beam), ids, score }));
    this.done = this.#isDone(made + 1);
    return growing.map(({ from }) => from);
  }

  /** The texts found; of a search that was broken off, those that were growing count too. */
  results(): BeamText[] {
    const growing = this.done ? [] : this.beams.map(({ ids, score }) => this.#brokenOff(ids, score));
    const all = [...this.#found, ...growing].sort((a, b) => b.score - a.score);
    return all.slice(0, this.#options.numReturnSequences);
  }

  #brokenOff(ids: readonly number[], score: number): BeamText {
    const own = ids.slice(this.#promptLength);
    return { ids: own, score: score / Math.max(1, own.length) ** this.#options.lengthPenalty };
  }

  /** log p of each token after a beam, but for what may not come. */
  #logs(beam: Beam, made: number): Float32Array {
    const { repetitionPenalty } = this.#settings.sampling;
    const all = logProbabilities(beam.logits);
    const logs = repetitionPenalty === 1 ? all : penaliseRepetition(all, new Set(beam.ids), repetitionPenalty);
    forbid(logs, beam.ids, made, this.#settings);
    return logs;
  }

  /**
   * The likeliest tokens after all beams, the best first, or some that are drawn: enough that beams are left where every end
   * token is among them.
   */
  #candidates(made: number): Candidate[] {
    const { eosTokenIds, sampling } = this.#settings;
    const size = Math.max(2, 1 + eosTokenIds.size) * this.#options.numBeams;
    if (sampling.doSample) {
      // As many as the end tokens and one more pass every filter.
      const least = 1 + eosTokenIds.size;
      const all = this.beams.flatMap((beam, from) =>
        filtered(this.#logs(beam, made), beam.score, from, least, sampling),
      );
      return drawn(all, size, this.#random);
    }
    const best: Candidate[] = [];
    let worst = -Infinity;
    this.beams.forEach((beam, from) => {
      const logs = this.#logs(beam, made);
      for (let id = 0; id < logs.length; id++) {
        const score = Math.fround((logs[id] as number) + beam.score);
        if (!(score > worst)) continue;
        const at = best.findIndex((other) => other.score < score);
        best.splice(at < 0 ? best.length : at, 0, { from, id, score });
        if (best.length > size) best.pop();
        if (best.length === size) worst = (best.at(-1) as Candidate).score;
      }
    });
    return best;
  }

  #finishOf(ids: readonly number[], made: number): TokenFinish | undefined {
    if (this.#settings.eosTokenIds.has(ids.at(-1) as number)) return "eos";
    if (this.#stopWhen?.(this.#row, ids.slice(this.#promptLength)) === true) return "stop";
    return made >= this.#settings.maxNewTokens ? "length" : undefined;
  }

  #isDone(made: number): boolean {
    const { numBeams, earlyStopping, lengthPenalty } = this.#options;
    if (this.beams.length === 0) return true;
    if (this.#found.length < numBeams) return false;
    if (earlyStopping === true) return true;
    const length = earlyStopping === "never" && lengthPenalty > 0 ? this.#settings.maxNewTokens : made;
    const score = Math.max(...this.beams.map((beam) => beam.score));
    return Math.fround(score / length ** lengthPenalty) <= (this.#found.at(-1) as BeamText).score;
  }
}

/**
 * The best texts of each prompt (token ids), the best first. A prompt's texts do not depend on the other prompts.
 *
 * @throws UserError for bad prompts, options or locations, before anything runs
 */
export async function searchBeams(
  target: Generative,
  prompts: readonly (readonly number[])[],
  options: BeamSearchOptions = {},
): Promise<BeamText[][]> {
  const model = baseOf(target);
  checkPrompts(model, prompts);
  const beams = beamsFor(model, options);
  const doSample = asksToDraw(options) ?? false;
  const settings = settingsFor(model, { ...options, doSample }, Math.max(...prompts.map((p) => p.length)));
  const edits = editsOfPrompts(target, prompts, options);
  const decoder = new Decoder(target, prompts.length * beams.numBeams, settings.maxNewTokens, options);
  const rows = prompts.map((ids, row) => ({ ids, edits: edits[row] as RowEdits, score: 0 }));
  const { cache, logits } = await readPrompts(target, rows, settings.maxNewTokens, options.signal);
  const searches = rows.map(
    (beam, row) =>
      new Search(row, { ...beam, logits: logits[row] ?? new Float32Array(0) }, settings, { ...options, ...beams }),
  );
  try {
    await growAll(searches, cache, decoder, options.signal);
  } finally {
    cache.dispose();
  }
  return searches.map((search) => search.results());
}

/** Grows all searches side by side, until every one is done. */
async function growAll(
  searches: readonly Search[],
  cache: KeyValueCache,
  decoder: Decoder,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let made = 0; !signal?.aborted; made++) {
    let row = 0;
    const sources = searches.flatMap((search) => {
      if (search.done) return [];
      const own = row;
      row += search.beams.length;
      const from = search.grow(made);
      return search.done ? [] : from.map((beam) => own + beam);
    });
    if (sources.length === 0) break;
    cache.gather(sources);
    await decoder.step(
      searches.flatMap((search) => (search.done ? [] : search.beams)),
      cache,
      made,
    );
  }
}
