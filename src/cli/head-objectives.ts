/** Learning to judge: a reward model from pairs, or a classifier from labelled texts; each with a head that is trained along. */

import type { ClassificationExample } from "../data/classification.js";
import type { Dataset } from "../data/dataset.js";
import { type GlueSet, glueColumns, glueFigures } from "../data/recipes/glue.js";
import { glueExamples } from "../data/recipes/glue-rows.js";
import {
  labelTask,
  makeClassificationDataset,
  type TextFields,
  type TextOptions,
  textFieldsOf,
} from "../data/texts.js";
import { UserError } from "../errors.js";
import type { ClassifierOptions } from "../models/classifier.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { type ClassificationEvaluation, ReftTrainerForSequenceClassification } from "../train/classification.js";
import type { Figures } from "../train/objective.js";
import type { Pair, PairEvaluation } from "../train/pairs.js";
import { ReftRewardTrainer } from "../train/reward.js";
import { type RowFile, reportOverlong } from "./examples.js";
import { given } from "./flags.js";
import { type LanguageOptions, pairFiguresOf, pairsReader } from "./language-objectives.js";
import type { CliObjective, ObjectiveOptions, Opening, Ready } from "./objective.js";
import { withClassifier } from "./open-model.js";

interface Judge {
  readonly reft: ReftModel;
  readonly tokenizer: Tokenizer;
}

/** Opens a model with a head, that of the adapter where one is named, puts edits on it, hands it over and closes it again. */
function withHead<T>(
  { choice, terminal, signal, edit }: Opening,
  head: ClassifierOptions,
  use: (judge: Judge) => Promise<T>,
): Promise<T> {
  return withClassifier(
    choice,
    terminal,
    head,
    ({ model, tokenizer, edited }) => use({ reft: edited ?? edit(model), tokenizer }),
    signal,
  );
}

/** Scores of answers, from pairs (Bradley–Terry). */
export function rewardObjective(data: RowFile, options: LanguageOptions): CliObjective {
  const { ignoreMismatchedSizes } = options;
  const head: ClassifierOptions = { numLabels: 1, ...given({ ignoreMismatchedSizes }) };
  return {
    name: "reward",
    open: (opening, use) =>
      withHead(opening, head, ({ reft, tokenizer }) => {
        const ready: Ready<Pair, PairEvaluation> = {
          reft,
          tokenizer,
          about: "Reward model: a score at the answer's last token",
          noun: "pair",
          ...pairsReader(reft, tokenizer, data, options, opening.terminal),
          trainer: (rest) => new ReftRewardTrainer({ ...rest, model: reft, tokenizer }),
          told: pairFiguresOf,
        };
        return use(ready);
      }),
  };
}

/** How labelled texts are read, and what is told of them. */
interface TextsTask {
  readonly about: string;
  readonly head: ClassifierOptions;
  examples(file: RowFile, tokenizer: Tokenizer, options: TextOptions): Dataset<ClassificationExample>;
  figures(evaluation: ClassificationEvaluation): Figures;
}

function textsObjective(task: TextsTask, options: { readonly maxLength?: number | undefined }): CliObjective {
  return {
    name: "classification",
    open: (opening, use) =>
      withHead(opening, task.head, ({ reft, tokenizer }) => {
        const ready: Ready<ClassificationExample, ClassificationEvaluation> = {
          reft,
          tokenizer,
          about: task.about,
          noun: "text",
          dataset: (file) => {
            const dataset = task.examples(file, tokenizer, textOptions(reft, options.maxLength));
            reportOverlong(file, dataset, opening.terminal);
            return dataset;
          },
          trainer: (rest) => new ReftTrainerForSequenceClassification({ ...rest, model: reft, tokenizer }),
          told: (evaluation) => ({ figures: task.figures(evaluation), over: evaluation.examples, of: "text" }),
        };
        return use(ready);
      }),
  };
}

/** Where a model with edits wants them in texts, and how long those may be. */
export function textOptions({ positions, edits, model }: ReftModel, maxLength: number | undefined): TextOptions {
  if (positions === undefined)
    throw new UserError("the adapter does not say which tokens it edits.", "Train it with reft train.");
  const { maxPositionEmbeddings, modelType } = model.config;
  return {
    positions,
    numInterventions: edits.length,
    maxLength: Math.min(maxLength ?? Number.POSITIVE_INFINITY, maxPositionEmbeddings),
    tokenTypes: modelType === "bert",
  };
}

export interface LabelOptions extends ObjectiveOptions {
  readonly maxLength?: number | undefined;
}

/**
 * One class, several, or a number, as the options say or the rows show it.
 *
 * @param files all that is read: a class may be in one of them only
 */
export function labelsObjective(files: readonly RowFile[], options: LabelOptions): CliObjective {
  const { labelField = "label", labels, numLabels, problemType, ignoreMismatchedSizes } = options;
  const rows = files.flatMap((file) => file.rows);
  const said = given({ labels, numLabels, problemType });
  const task = labelTask(rows, labelField, files[0]?.path ?? "", said);
  const textFields = textFieldsFor(rows, options);
  const names = task.labels === undefined ? `${task.numLabels}` : task.labels.slice(0, 8).join(", ");
  const text: TextsTask = {
    about:
      task.problemType === "regression"
        ? "Regression: one number"
        : `Classification (${task.problemType.replaceAll("_", " ").replace(" classification", "")}): classes ${names}${task.numLabels > 8 && task.labels !== undefined ? " …" : ""}`,
    head: { ...task, ...given({ ignoreMismatchedSizes }) },
    examples: ({ rows: own, path }, tokenizer, place) =>
      makeClassificationDataset(own, path, tokenizer, { ...place, ...task, labelField, ...given({ textFields }) }),
    figures: ({ loss, metrics }) => ({ loss, ...metrics }),
  };
  return textsObjective(text, options);
}

/** The columns that are asked for; undefined: those that a file's first row has. */
export function textFieldsFor(
  rows: RowFile["rows"],
  { textField, textPairField }: Pick<ObjectiveOptions, "textField" | "textPairField">,
): TextFields | undefined {
  const first = textField ?? (rows[0] && textFieldsOf(rows[0])?.[0]);
  if (textPairField !== undefined) return [first ?? "text", textPairField];
  return textField === undefined ? undefined : [textField];
}

/** One of GLUE's sets, in its own columns and measured by its own figures. */
export function glueObjective(
  set: GlueSet,
  { maxLength, ignoreMismatchedSizes }: Pick<LabelOptions, "maxLength" | "ignoreMismatchedSizes">,
): CliObjective {
  const { labels } = glueColumns[set];
  const task: ClassifierOptions =
    labels.length === 0
      ? { numLabels: 1, problemType: "regression" }
      : { labels, problemType: "single_label_classification" };
  return textsObjective(
    {
      about: `GLUE ${set}`,
      head: { ...task, ...given({ ignoreMismatchedSizes }) },
      examples: ({ rows, path }, tokenizer, place) => glueExamples(set, rows, path, tokenizer, place),
      figures: ({ loss, metrics }) => ({ loss, ...glueFigures(set, metrics) }),
    },
    { maxLength },
  );
}
