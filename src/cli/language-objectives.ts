/** Learning to answer: from examples (sft), or from pairs of a better and a worse answer (dpo). */

import type { Dataset } from "../data/dataset.js";
import type { Example } from "../data/example.js";
import { chooseTemplate } from "../data/format.js";
import { makePreferenceDataset, pairKind } from "../data/pairs.js";
import type { PreferenceExample } from "../data/preference.js";
import type { Row } from "../files/rows.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { ReftTrainerForDPO } from "../train/dpo.js";
import type { PairEvaluation } from "../train/pairs.js";
import { type Evaluation, ReftTrainerForCausalLM } from "../train/trainer.js";
import { type ExampleOptions, examplesOf, type RowFile, reportOverlong, settleTemplate } from "./examples.js";
import { given } from "./flags.js";
import type { CliObjective, ObjectiveOptions, Ready } from "./objective.js";
import { type Opened, withModel } from "./open-model.js";
import type { Terminal } from "./terminal.js";

export interface LanguageOptions extends ExampleOptions, ObjectiveOptions {
  readonly template?: string | undefined;
}

/** Next tokens of answers. */
export function answersObjective(data: RowFile, options: LanguageOptions): CliObjective {
  return {
    name: "sft",
    open: ({ choice, terminal, signal, edit }, use) =>
      withModel(
        choice,
        terminal,
        ({ model, tokenizer, edited }) => {
          const reft = edited ?? edit(model);
          if (reft.template === undefined || options.template !== undefined)
            settleTemplate(reft, options.template, data, tokenizer);
          const ready: Ready<Example, Evaluation> = {
            reft,
            tokenizer,
            about: undefined,
            noun: "example",
            dataset: (file) => examplesOf(file, reft, tokenizer, options, terminal),
            trainer: (rest) => new ReftTrainerForCausalLM({ ...rest, model: reft, tokenizer }),
            told: ({ loss, perplexity, tokens }) => ({ figures: { loss, perplexity }, over: tokens, of: "token" }),
          };
          return use(ready);
        },
        signal,
      ),
  };
}

/** Preferences between answers, against the model without its edits. */
export function preferencesObjective(data: RowFile, options: LanguageOptions): CliObjective {
  const { beta, lossType, labelSmoothing } = options;
  return {
    name: "dpo",
    open: ({ choice, terminal, signal, edit }, use) =>
      withModel(
        choice,
        terminal,
        ({ model, tokenizer, edited }: Opened) => {
          const reft = edited ?? edit(model);
          const { dataset } = pairsReader(reft, tokenizer, data, options, terminal);
          const ready: Ready<PreferenceExample, PairEvaluation> = {
            reft,
            tokenizer,
            about: `Preferences (DPO): beta ${beta ?? 0.1}, loss ${lossType ?? "sigmoid"}${labelSmoothing === undefined ? "" : `, label smoothing ${labelSmoothing}`}`,
            noun: "pair",
            dataset,
            trainer: (rest) =>
              new ReftTrainerForDPO({
                ...rest,
                ...given({ beta, lossType, labelSmoothing }),
                model: reft,
                tokenizer,
              }),
            told: pairFiguresOf,
          };
          return use(ready);
        },
        signal,
      ),
  };
}

/** Settles how prompts of pairs are formed, and reads files of them. */
export function pairsReader(
  reft: ReftModel,
  tokenizer: Tokenizer,
  data: RowFile,
  options: LanguageOptions,
  terminal: Terminal,
): { dataset(file: RowFile): Dataset<PreferenceExample> } {
  const { positions } = reft;
  if (positions === undefined) throw new Error("internal: a model with edits, but without positions");
  if (reft.template === undefined || options.template !== undefined)
    reft.template = chooseTemplate(options.template, tokenizer, pairKind(data.rows[0] as Row));
  return {
    dataset: (file) => {
      const dataset = makePreferenceDataset(file.rows, file.path, tokenizer, {
        positions,
        numInterventions: reft.edits.length,
        maxLength: options.maxLength ?? reft.model.config.maxPositionEmbeddings,
        nonstop: options.nonstop ?? false,
        ...given({ template: reft.template }),
      });
      reportOverlong(file, dataset, terminal);
      return dataset;
    },
  };
}

/** What pairs are measured by. */
export function pairFiguresOf({
  pairs: over,
  loss,
  accuracy,
  margin,
  rewardChosen,
  rewardRejected,
}: PairEvaluation): ReturnType<Ready<PreferenceExample, PairEvaluation>["told"]> {
  return { figures: { loss, accuracy, margin, rewardChosen, rewardRejected }, over, of: "pair" };
}
