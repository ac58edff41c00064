/** Examples of different lengths as one batch: padded on the right, with the rows to edit and the rows to learn as flat lists. */
import { invariant, UserError } from "../errors.js";
import { type Example, NO_LABEL, type Sequence } from "./example.js";
import { checkSubspaces } from "./subspaces.js";

/**
 * The position given to padding where attention compares positions: later than any token, so that no token ever looks at it.
 */
export const PADDING_POSITION: number = 2 ** 30;

/** The tokens of an example that take part in a call: from `start` up to but not including `end`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** B examples of T tokens; a row is an index into the flattened [B·T], b·T + t, t counted from the start of the example's span. */
export interface TokenBatch {
  /** B. */
  readonly size: number;
  /** T, the length of the longest span. */
  readonly length: number;
  /** [B·T] token ids. */
  readonly ids: BigInt64Array;
  /** [B·T] the tokens' places in their examples; padding repeats the last. */
  readonly positions: Int32Array;
  /** [B·T] the same for real tokens; `PADDING_POSITION` for padding. */
  readonly keyPositions: Int32Array;
  /** [B·T] the tokens' segments; missing where no example tells segments apart. */
  readonly tokenTypes?: BigInt64Array;
  /** [B] the row of each example's last token. */
  readonly endRows: Int32Array;
  /** One list of rows an edit, or one list for all edits; ascending, no row twice, real tokens only. */
  readonly editRows: readonly Int32Array[];
  /** The columns of the edits' subspaces that each example picks; missing where none picks. See `subspaceFactors`. */
  readonly subspaces?: readonly Sequence[];
}

/** A batch with tokens to learn. */
export interface Batch extends TokenBatch {
  /** [M] the rows that predict a label: the row before the labelled token. */
  readonly labelRows: Int32Array;
  /** [M] the token to be predicted there. */
  readonly labels: Int32Array;
  /** [M] which of the B examples the label belongs to. */
  readonly labelExample: Int32Array;
}

export type Collator = (examples: readonly Example[]) => Batch;

export interface CollateOptions {
  readonly padTokenId: number;
  /** For each example the tokens that take part; default all. Edits outside are left out, labels outside are refused. */
  readonly spans?: readonly Span[];
  /** The batch's length is a multiple of it. Default 1. */
  readonly multipleOf?: number;
}

/**
 * Joins examples into a batch.
 *
 * @throws UserError where an example's labels, locations or subspaces do not fit
 */
export function collate(examples: readonly Example[], options: CollateOptions): Batch {
  examples.forEach(({ inputIds, labels }, b) => {
    if (labels.length === inputIds.length) return;
    throw new UserError(
      `Example ${b} has ${inputIds.length} tokens and ${labels.length} labels.`,
      "Give every token a label; −100 is none.",
    );
  });
  const batch = collateTokens(examples, options);
  const labelRows: number[] = [];
  const labels: number[] = [];
  const labelExample: number[] = [];
  examples.forEach((example, b) => {
    const { start, end } = options.spans?.[b] ?? { start: 0, end: example.inputIds.length };
    const row = b * batch.length - start;
    example.labels.forEach((label, t) => {
      // Nothing comes before the first token, so nothing predicts it.
      if (label === NO_LABEL || t === 0) return;
      invariant(t > start && t <= end, `the label at ${t} is not predicted within ${start}–${end}`);
      labelRows.push(row + t - 1);
      labels.push(label);
      labelExample.push(b);
    });
  });
  return {
    ...batch,
    labelRows: Int32Array.from(labelRows),
    labels: Int32Array.from(labels),
    labelExample: Int32Array.from(labelExample),
  };
}

/**
 * Joins sequences into a batch without labels.
 *
 * @throws UserError where a sequence's locations or subspaces do not fit its tokens
 */
export function collateTokens(sequences: readonly Sequence[], options: CollateOptions): TokenBatch {
  const size = sequences.length;
  invariant(size > 0, "a batch of no examples");
  const spans = options.spans ?? sequences.map((e) => ({ start: 0, end: e.inputIds.length }));
  const { multipleOf = 1 } = options;
  const length = Math.ceil(Math.max(...spans.map((s) => s.end - s.start)) / multipleOf) * multipleOf;
  const ids = new BigInt64Array(size * length).fill(BigInt(options.padTokenId));
  const positions = new Int32Array(size * length);
  const keyPositions = new Int32Array(size * length).fill(PADDING_POSITION);
  const endRows = new Int32Array(size);
  const lists = sequences[0]?.locations.length ?? 0;
  const editRows: number[][] = Array.from({ length: lists }, () => []);
  sequences.forEach((sequence, b) => {
    check(sequence, b, lists);
    const { start, end } = spans[b] as Span;
    const row = b * length - start;
    positions.fill(end - 1, b * length, (b + 1) * length);
    for (let t = start; t < end; t++) {
      ids[row + t] = BigInt(sequence.inputIds[t] as number);
      positions[row + t] = t;
      keyPositions[row + t] = t;
    }
    endRows[b] = row + end - 1;
    sequence.locations.forEach((list, edit) => {
      for (const t of [...new Set(list)].sort((x, y) => x - y))
        if (t >= start && t < end) editRows[edit]?.push(row + t);
    });
  });
  const typed = sequences.some((sequence) => sequence.tokenTypeIds !== undefined);
  const tokenTypes = new BigInt64Array(typed ? size * length : 0);
  if (typed)
    sequences.forEach(({ tokenTypeIds }, b) => {
      const { start, end } = spans[b] as Span;
      for (let t = start; t < end; t++) tokenTypes[b * length - start + t] = BigInt(tokenTypeIds?.[t] ?? 0);
    });
  const picks = sequences.some((sequence) => sequence.subspaces !== undefined);
  return {
    size,
    length,
    ids,
    positions,
    keyPositions,
    ...(typed ? { tokenTypes } : {}),
    endRows,
    editRows: editRows.map((rows) => Int32Array.from(rows)),
    ...(picks ? { subspaces: sequences } : {}),
  };
}

/** Sequences may be written by hand, so what would read or edit another one's row is refused. */
function check(sequence: Sequence, b: number, lists: number): void {
  const { inputIds, locations } = sequence;
  const n = inputIds.length;
  if (locations.length !== lists) {
    throw new UserError(
      `Example ${b} has ${locations.length} lists of locations where example 0 has ${lists}.`,
      "Make all examples for the same edits.",
    );
  }
  const outside = locations.flat().find((t) => !Number.isInteger(t) || t < 0 || t >= n);
  if (outside !== undefined) {
    throw new UserError(`Example ${b} edits token ${outside} of ${n}.`, `Locations are token indices, 0–${n - 1}.`);
  }
  checkSubspaces(sequence, `Example ${b}`);
}
