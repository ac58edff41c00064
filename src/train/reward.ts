/** Reward modelling (Bradley–Terry): a score for a text, higher for what people prefer. */

import { collateTokens } from "../data/collate.js";
import { on } from "../data/dataset.js";
import { encodeLesson } from "../data/encode.js";
import type { Sequence } from "../data/example.js";
import { chooseTemplate, formatLesson } from "../data/format.js";
import { UserError } from "../errors.js";
import { input, type Tensor } from "../graph/tensor.js";
import { mul, reduceSum, reshape, takeRows } from "../ops/index.js";
import { headPrefix } from "../reft/adapter.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { HostTensor } from "../runtime/runtime.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { logitsOf } from "./classification-predict.js";
import { int64s } from "./next-token.js";
import type { Objective } from "./objective.js";
import {
  checkPairs,
  differences,
  negLogSigmoid,
  type Pair,
  type PairEvaluation,
  pairEvaluation,
  pairFeeds,
  pairFigures,
  sequencesOf,
} from "./pairs.js";
import { ReftTrainer, type TrainerOptions } from "./trainer.js";

/** −ln σ(r_w − r_l), where a sequence's reward r is the head's one output at its last token. */
export const reward: Objective<Pair, PairEvaluation> = {
  sequences: sequencesOf,
  reads: ({ inputIds }) => ({ first: inputIds.length - 1, last: inputIds.length - 1 }),
  outputs: ({ reft, hidden, parameters }) => {
    const last = takeRows(hidden, input("endRows", "int64", ["B"]));
    const logits = reft.model.classifier?.logits(last, (name) => parameters.get(`${headPrefix}${name}`) as Tensor);
    const rewards = reshape(logits as Tensor, { shape: ["B"] });
    const each = negLogSigmoid(differences(rewards));
    return { loss: reduceSum(mul(each, input("pairWeights", "float32", ["K"])), { axes: [0] }), rewards };
  },
  batches: () => ({
    make: (pairs, options, weight) => {
      const batch = collateTokens(pairs.flatMap(sequencesOf), options);
      return { batch, feeds: { endRows: int64s(batch.endRows), ...pairFeeds(pairs.length, weight) } };
    },
    dispose: async () => {},
  }),
  figures: (_pairs, { rewards }) => pairFigures((rewards as HostTensor).data as Float32Array),
  terms: (pairs) => pairs.length,
  evaluation: pairEvaluation,
  check: (pairs, reft, name) => {
    checkHead(reft);
    checkPairs(pairs, reft, name);
  },
  digest: ({ chosen, rejected }) =>
    [chosen, rejected].map((s: Sequence) => [s.inputIds, s.locations, s.subspaces, s.coefficients]),
  settings: { objective: "reward" },
};

/** An answer to a prompt, to be scored. */
export interface Answer {
  readonly prompt: string;
  readonly answer: string;
}

/**
 * The rewards of answers, one each; only differences between answers to one prompt mean anything.
 *
 * @param options.template how prompts are formed; default the model's own, else as in `makePreferenceDataset`
 * @throws UserError where the model has no score head or no positions, and where a prompt or an answer has no tokens
 */
export async function rewardsOf(
  reft: ReftModel,
  tokenizer: Tokenizer,
  answers: readonly Answer[],
  options: { readonly template?: string; readonly batchSize?: number } = {},
): Promise<number[]> {
  checkHead(reft);
  const { positions, edits } = reft;
  if (positions === undefined)
    throw new UserError(
      "the model does not say which tokens to edit.",
      'Pass positions, such as "l1", in its config or to the trainer.',
    );
  const template = chooseTemplate(options.template ?? reft.template, tokenizer);
  const examples = answers.map(({ prompt, answer }, i) =>
    on(`answers[${i}]`, () => {
      const lesson = {
        line: i,
        question: { kind: "prompt", prompt },
        answer: { role: "assistant", content: answer },
      } as const;
      const text = formatLesson(lesson, template, tokenizer);
      return encodeLesson(text, tokenizer, { positions, numInterventions: edits.length });
    }),
  );
  const { batchSize = 8 } = options;
  const logits = await logitsOf(reft, examples, { batchSize, padTokenId: tokenizer.padTokenId });
  return logits.map(([score]) => score as number);
}

function checkHead({ model }: ReftModel): void {
  const { classifier } = model;
  if (classifier?.numLabels === 1 && classifier.row === "last") return;
  throw new UserError(
    classifier === undefined
      ? `${model.id} was loaded to continue texts: it has no head to score them with.`
      : `${model.id} has a head of ${classifier.numLabels} labels read at the ${classifier.row} token, no score of the last.`,
    "Load a decoder with AutoModelForSequenceClassification.fromPretrained(id, { numLabels: 1 }).",
  );
}

/** Trains edits and a score head on pairs of a better and a worse text. The head is saved with the edits. */
export class ReftRewardTrainer extends ReftTrainer<Pair, PairEvaluation> {
  /** Checks the arguments and the data; opens nothing yet. Throws UserError for bad arguments or data, or a model without a score head. */
  constructor(options: TrainerOptions<Pair>) {
    super(options, reward);
  }
}
