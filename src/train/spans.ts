/** Which tokens of an example take part in a step. */

import type { Span } from "../data/collate.js";
import type { Sequence } from "../data/example.js";
import { queryPartsFor } from "../models/attention.js";
import type { ReftModel } from "../reft/reft-model.js";
import { nextToken } from "./next-token.js";
import type { Objective } from "./objective.js";

type Reader = Pick<Objective<never>, "reads">;

/**
 * All tokens up to the last that the loss reads, which predicts a label: what comes after it, nothing looks at. Where every
 * token sees every other, or rotary frequencies depend on the length, nothing is left out.
 */
export function wholeSpans(reft: ReftModel, sequences: readonly Sequence[], reader: Reader = nextToken): Span[] {
  const { bidirectional, config } = reft.model;
  const whole = bidirectional || (config.rope?.kind ?? "fixed") !== "fixed";
  return sequences.map((sequence) => {
    const end = whole ? sequence.inputIds.length : reader.reads(sequence).last + 1;
    return { start: 0, end: Math.max(end, 1) };
  });
}

/** The tokens from the first edited one (or the first that the loss reads, where that comes earlier) on. */
export function liveSpans(reft: ReftModel, sequences: readonly Sequence[], reader: Reader = nextToken): Span[] {
  return wholeSpans(reft, sequences, reader).map(({ end }, i) => {
    // What sees later tokens is not done when they are not known.
    if (reft.model.bidirectional) return { start: 0, end };
    const sequence = sequences[i] as Sequence;
    const { first } = reader.reads(sequence);
    const start = sequence.locations.flat().reduce((a, b) => Math.min(a, b), Math.max(first, 0));
    return { start: Math.min(start, end - 1), end };
  });
}

/** In how many stretches so many tokens a row attend. Where every token sees every other, there is nothing to leave out. */
export function queryPartsIn({ model }: ReftModel, tokens: number): number {
  return model.bidirectional ? 1 : queryPartsFor(tokens);
}

/** The same for the longest of some spans. */
export function queryPartsOf(reft: ReftModel, spans: readonly Span[]): number {
  return queryPartsIn(reft, Math.max(...spans.map((s) => s.end - s.start)));
}
