/** Classifying texts: one class, any number of classes, or a number; edits and head are trained together. */

import { type ClassificationExample, collateClassification } from "../data/classification.js";
import { UserError } from "../errors.js";
import { input, type Tensor } from "../graph/tensor.js";
import type { Classifier, ProblemType } from "../models/classifier.js";
import { classificationLoss } from "../models/classifier-loss.js";
import { takeRows } from "../ops/index.js";
import { headPrefix } from "../reft/adapter.js";
import type { ReftModel } from "../reft/reft-model.js";
import { chunks } from "./batches.js";
import {
  accuracy,
  f1Binary,
  f1Macro,
  matthews,
  meanSquaredError,
  multiLabel,
  pearson,
  spearman,
} from "./classification-metrics.js";
import { checkExamples } from "./examples.js";
import { int64s } from "./next-token.js";
import type { BatchMaker, Feeds, Figures, Measured, Objective } from "./objective.js";
import { ReftTrainer, type TrainerOptions } from "./trainer.js";

export interface ClassificationEvaluation extends Measured {
  /**
   * For one class a text accuracy, f1 (of class 1 where there are two, else the mean over classes), f1Macro and matthews; for
   * any number of classes accuracy, f1 (of all decisions) and f1Macro; for numbers mse, pearson and spearman.
   */
  readonly metrics: Figures;
  /** Texts. */
  readonly examples: number;
}

/** The head of a model that classifies. */
export function classifierOf({ model }: Pick<ReftModel, "model">): Classifier {
  if (model.classifier !== undefined) return model.classifier;
  throw new UserError(
    `${model.id} was loaded to continue texts, not to classify them.`,
    "Load it with AutoModelForSequenceClassification.",
  );
}

/** Logits [B, C] as rows. */
export function logitRows(outputs: Feeds): number[][] {
  const { data, shape } = outputs.logits as Feeds[string];
  return chunks(Array.from(data as Float32Array), { batchSize: shape[1] as number, dropLast: false });
}

/** The mean over texts of cross entropy, binary cross entropy or squared error; the last two are means over labels too. */
export function classification(
  classifier: Classifier,
  problemType: ProblemType,
): Objective<ClassificationExample, ClassificationEvaluation> {
  const { numLabels, row } = classifier;
  return {
    sequences: (example) => [example],
    reads: ({ inputIds }) => {
      const last = inputIds.length - 1;
      return { first: row === "first" ? 0 : last, last };
    },
    outputs: ({ hidden, parameters }) => {
      const read = takeRows(hidden, input("readRows", "int64", ["N"]));
      const logits = classifier.logits(read, (name) => parameters.get(`${headPrefix}${name}`) as Tensor);
      return { loss: classificationLoss(problemType, logits), logits };
    },
    batches: () => batchMaker(classifier, problemType),
    figures: () => ({}),
    overall: (examples, outputs) => metricsOf(problemType, numLabels, outputs.flatMap(logitRows), examples),
    terms: (examples) => examples.length,
    evaluation: (loss, examples, metrics) => ({ loss, metrics, examples }),
    check: (examples, reft, name) => {
      checkTexts(examples, reft, name);
      checkLabels(examples, problemType, numLabels, name);
    },
    digest: (e) => [e.inputIds, e.label, e.locations, e.tokenTypeIds, e.subspaces, e.coefficients],
    settings: { objective: "classification", problemType, numLabels },
  };
}

function batchMaker({ numLabels, row }: Classifier, problemType: ProblemType): BatchMaker<ClassificationExample> {
  return {
    make: (examples, options, weight) => {
      const { targets, ...batch } = collateClassification(examples, { ...options, problemType, numLabels });
      const firstRows = Int32Array.from(examples, (_, b) => b * batch.length);
      const wanted: Feeds =
        problemType === "single_label_classification"
          ? { classes: int64s(targets.map((y, i) => i * numLabels + y)) }
          : { targets: { shape: [examples.length, numLabels], data: targets } };
      const readRows = int64s(row === "first" ? firstRows : batch.endRows);
      return { batch, feeds: { ...wanted, readRows, weight: { shape: [], data: Float32Array.of(weight) } } };
    },
    dispose: async () => {},
  };
}

/**
 * Checks texts as `checkExamples` does, and their lengths.
 *
 * @throws UserError that names the first text that has no tokens, or more than the model has positions for
 */
export function checkTexts(examples: readonly ClassificationExample[], reft: ReftModel, name: string): void {
  checkExamples(examples, reft, name);
  const { rope, maxPositionEmbeddings: learned } = reft.model.config;
  const most = rope === undefined ? learned : Number.POSITIVE_INFINITY;
  const wrong = examples.findIndex(({ inputIds: { length } }) => length === 0 || length > most);
  if (wrong < 0) return;
  const n = examples[wrong]?.inputIds.length ?? 0;
  throw new UserError(
    n === 0 ? `${name}[${wrong}] has no tokens.` : `${name}[${wrong}] has ${n} tokens; ${reft.model.id} takes ${most}.`,
    n === 0 ? "Leave it out." : "Shorten it, or pass maxLength to the data set.",
  );
}

function checkLabels(
  examples: readonly ClassificationExample[],
  problemType: ProblemType,
  numLabels: number,
  name: string,
): void {
  const isClass = (y: number): boolean => Number.isInteger(y) && y >= 0 && y < numLabels;
  const fits = ({ label }: ClassificationExample): boolean => {
    if (problemType === "multi_label_classification") return typeof label === "object" && label.every(isClass);
    return typeof label === "number" && (problemType === "regression" ? Number.isFinite(label) : isClass(label));
  };
  const wrong = examples.findIndex((e) => !fits(e));
  if (wrong < 0) return;
  const classes = numLabels === 1 ? "0, the only class" : `0–${numLabels - 1}`;
  const wants = {
    single_label_classification: `one of ${classes}`,
    multi_label_classification: `a list of any of ${classes}`,
    regression: "a finite number",
  };
  throw new UserError(
    `${name}[${wrong}] has the label ${JSON.stringify(examples[wrong]?.label)}; ${problemType} wants ${wants[problemType]}.`,
    "Correct the label, or load the model with the numLabels and the problemType that the data has.",
  );
}

function metricsOf(
  problemType: ProblemType,
  numLabels: number,
  logits: readonly (readonly number[])[],
  examples: readonly ClassificationExample[],
): Figures {
  if (problemType === "multi_label_classification") {
    const has = ({ label }: ClassificationExample): boolean[] =>
      Array.from({ length: numLabels }, (_, k) => (label as readonly number[]).includes(k));
    const { accuracy: right, ...f1 } = multiLabel(
      logits.map((z) => z.map((x) => x > 0)),
      examples.map(has),
    );
    return { accuracy: right, ...f1 };
  }
  const labels = examples.map((e) => e.label as number);
  if (problemType === "regression") {
    const told = logits.map((z) => z[0] as number);
    return { mse: meanSquaredError(told, labels), pearson: pearson(told, labels), spearman: spearman(told, labels) };
  }
  const predicted = logits.map((z) => z.indexOf(Math.max(...z)));
  const macro = f1Macro(predicted, labels);
  return {
    accuracy: accuracy(predicted, labels),
    f1: numLabels === 2 ? f1Binary(predicted, labels) : macro,
    f1Macro: macro,
    matthews: matthews(predicted, labels),
  };
}

/** What a model is to tell: as it was loaded to, or as labels show, by transformers' rule. */
function problemOf(classifier: Classifier, examples: readonly ClassificationExample[]): ProblemType {
  const byLabels: ProblemType =
    classifier.numLabels === 1
      ? "regression"
      : typeof examples[0]?.label === "object"
        ? "multi_label_classification"
        : "single_label_classification";
  const problem = classifier.problemType ?? byLabels;
  if (problem === "regression" && classifier.numLabels !== 1)
    throw new UserError(
      `the model has ${classifier.numLabels} labels; regression tells one number.`,
      "Load it with numLabels: 1.",
    );
  return problem;
}

/**
 * Trains edits and a classification head on labelled texts (pyreft's ReftTrainerForSequenceClassification). Unlike in
 * transformers, neither the frozen model nor the head drops anything out.
 */
export class ReftTrainerForSequenceClassification extends ReftTrainer<ClassificationExample, ClassificationEvaluation> {
  /**
   * Checks the arguments and the data; opens nothing yet.
   *
   * @throws UserError for bad arguments or labels, no data, or a model that was not loaded to classify
   */
  constructor(options: TrainerOptions<ClassificationExample>) {
    const classifier = classifierOf(options.model);
    const problemType = problemOf(classifier, options.trainDataset);
    super(options, classification(classifier, problemType));
    classifier.problemType = problemType;
  }
}
