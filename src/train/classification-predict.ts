/** What a trained classifier says of texts. */

import type { ClassificationExample } from "../data/classification.js";
import { UserError } from "../errors.js";
import { locate, spreadUnits } from "../reft/positions.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { chunks } from "./batches.js";
import { checkTexts, classification, classifierOf, logitRows } from "./classification.js";
import { openStepOf } from "./step.js";

export interface Classified {
  /** The likeliest class's name; for several classes those of 0.5 and more, with commas; for regression the label's name. */
  readonly label: string;
  /** Its share: softmax over classes, or each class's sigmoid; for regression the number itself. */
  readonly score: number;
  /** The same for every class, in order. */
  readonly scores: readonly number[];
}

export interface PredictOptions {
  /** Default 8. */
  readonly batchSize?: number;
  /** Called after every batch with how many texts are done. */
  readonly onProgress?: (done: number) => void;
  /** Stops after the batch in progress: its reason is thrown. */
  readonly signal?: AbortSignal;
}

/**
 * Logits of texts, a list of numLabels each; labels are not looked at.
 *
 * @throws UserError where a text does not fit the model, or the model does not classify
 */
export async function logitsOf(
  reft: ReftModel,
  examples: readonly ClassificationExample[],
  {
    batchSize = 8,
    padTokenId = 0,
    onProgress,
    signal,
  }: PredictOptions & { readonly padTokenId?: number | undefined } = {},
): Promise<number[][]> {
  checkTexts(examples, reft, "texts");
  // Whatever the problem, logits are the same: the one that needs no label of its own is asked for.
  const objective = classification(classifierOf(reft), "multi_label_classification");
  const options = { training: false, padTokenId, frozenCache: false, frozenCacheBytes: 0 };
  const step = await openStepOf(objective, reft, options);
  try {
    const found: number[][] = [];
    for (const batch of chunks(examples, { batchSize, dropLast: false })) {
      signal?.throwIfAborted();
      const unlabelled = batch.map((example) => ({ ...example, label: [] }));
      found.push(...logitRows((await step.run(unlabelled, 1)).outputs));
      onProgress?.(found.length);
    }
    return found;
  } finally {
    await step.dispose();
  }
}

/**
 * The classes of texts, edited where the model's own position rule says.
 *
 * @throws UserError where the model has no positions or does not classify, and for a text without tokens
 */
export async function classify(
  reft: ReftModel,
  tokenizer: Pick<Tokenizer, "encode" | "padTokenId">,
  texts: readonly string[],
  options: PredictOptions = {},
): Promise<Classified[]> {
  classifierOf(reft);
  const { positions, edits } = reft;
  if (positions === undefined)
    throw new UserError(
      "the model does not say which tokens to edit.",
      'Pass positions, such as "f1+l1", in its config or to the trainer.',
    );
  const examples = texts.map((text, i) => {
    const inputIds = tokenizer.encode(text);
    if (inputIds.length === 0) throw new UserError(`texts[${i}] has no tokens.`, "Leave it out.");
    return { inputIds, locations: spreadUnits(locate(positions, inputIds.length), edits.length) };
  });
  return classesOf(reft, examples, { ...options, padTokenId: tokenizer.padTokenId });
}

/** The classes of texts that are tokens already: pairs, say. */
export async function classesOf(
  reft: ReftModel,
  examples: readonly ClassificationExample[],
  options: PredictOptions & { readonly padTokenId?: number | undefined } = {},
): Promise<Classified[]> {
  const { labels, problemType } = classifierOf(reft);
  const logits = await logitsOf(reft, examples, options);
  return logits.map((z) => {
    if (problemType === "regression") return { label: labels[0] as string, score: z[0] as number, scores: z };
    if (problemType === "multi_label_classification") {
      const scores = z.map((x) => 1 / (1 + Math.exp(-x)));
      const there = labels.filter((_, k) => (scores[k] as number) >= 0.5);
      return { label: there.join(", "), score: Math.max(...scores), scores };
    }
    const scores = softmax(z);
    const score = Math.max(...scores);
    return { label: labels[scores.indexOf(score)] as string, score, scores };
  });
}

function softmax(z: readonly number[]): number[] {
  const top = Math.max(...z);
  const powers = z.map((x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}
