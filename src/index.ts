/** The public surface: load, train, generate, edits, types. */

export {
  type ClassificationBatch,
  type ClassificationExample,
  collateClassification,
  type ProblemType,
  ReftClassificationDataset,
  type ReftClassificationOptions,
} from "./data/classification.js";
export { type Batch, collate, collateTokens, type TokenBatch } from "./data/collate.js";
export { ReftDataCollator, ReftRewardCollator } from "./data/collators.js";
export { type Dataset, type DatasetOptions, makeDataset } from "./data/encode.js";
export type { Example, Sequence } from "./data/example.js";
export {
  ReftGenerationDataset,
  type ReftGenerationOptions,
  ReftRawDataset,
  type ReftRawOptions,
  ReftSupervisedDataset,
  type ReftSupervisedOptions,
} from "./data/lessons.js";
export { getInterventionLocations, type PaddedLocations, type PromptLocations } from "./data/locations.js";
export {
  type DataModule,
  type LastPositionOptions,
  type MultiplePositionOptions,
  makeLastPositionSupervisedChatDataModule,
  makeLastPositionSupervisedDataModule,
  makeMultiplePositionSupervisedDataModule,
} from "./data/modules.js";
export { makePreferenceDataset, type PreferenceDatasetOptions } from "./data/pairs.js";
export {
  type PreferenceExample,
  ReftPreferenceDataset,
  type ReftPreferenceOptions,
  steeringExample,
} from "./data/preference.js";
export { lessonOf, placeIn, ReftDataset, type ReftDatasetOptions, tokensOf, toRows } from "./data/reft-dataset.js";
export { ReftRewardDataset, type ReftRewardOptions, type RewardBatch, type RewardExample } from "./data/reward.js";
export { type ClassificationDatasetOptions, makeClassificationDataset } from "./data/texts.js";
export { UserError } from "./errors.js";
export type { Row } from "./files/rows.js";
export { readRows } from "./files/rows-node.js";
export { Chat, type ChatSettings } from "./generate/chat.js";
export type { EditOptions, GeneratedWindow, Locations } from "./generate/edits.js";
export type { BeamOptions, GenerateOptions } from "./generate/options.js";
export { type BatchOptions, type Generated, generate, stream, type TextOptions } from "./generate/text.js";
export type { Tensor } from "./graph/tensor.js";
export { type LoadDatasetOptions, type LoadedDataset, loadDataset } from "./hub/dataset.js";
export type { Uploaded } from "./hub/upload.js";
export {
  AutoModelForCausalLM,
  AutoModelForSequenceClassification,
  AutoTokenizer,
  type ClassifierModelOptions,
  importAdapter,
  type ModelOptions,
} from "./load.js";
export { CausalLM } from "./models/causal-lm.js";
export { type ClassifierOptions, SequenceClassifier } from "./models/classifier.js";
export type { ModelConfig } from "./models/config.js";
export { type Component, components, type Site } from "./models/site.js";
export * as ops from "./ops/index.js";
export type { TrainingFigures } from "./reft/card.js";
export { parseLayers, type ReftConfig, type Representation } from "./reft/config.js";
export { ConsreftIntervention } from "./reft/consreft.js";
export type { Imported } from "./reft/convert.js";
export { DireftIntervention } from "./reft/direft.js";
export {
  type EditDType,
  Intervention,
  type InterventionOptions,
  type Named,
  type ParameterShape,
} from "./reft/intervention.js";
export { LobireftIntervention } from "./reft/lobireft.js";
export { LoreftIntervention } from "./reft/loreft.js";
export { NodireftIntervention } from "./reft/nodireft.js";
export { NoreftIntervention } from "./reft/noreft.js";
export type { Said } from "./reft/plain-adapter.js";
export { locate, type Positions, parsePositions } from "./reft/positions.js";
export { getReftModel, type PushOptions, ReftModel } from "./reft/reft-model.js";
export { SubloreftIntervention } from "./reft/subloreft.js";
export { availableDevices } from "./runtime/node.js";
export type { ChatMessage } from "./tokens/template.js";
export { Tokenizer } from "./tokens/tokenizer.js";
export type { TrainingArguments, TrainingOptions } from "./train/arguments.js";
export { type ClassificationEvaluation, ReftTrainerForSequenceClassification } from "./train/classification.js";
export { type Classified, classify, logitsOf, type PredictOptions } from "./train/classification-predict.js";
export { type DPOLossType, type DPOOptions, type DPOTrainerOptions, ReftTrainerForDPO } from "./train/dpo.js";
export type { TrainEvent } from "./train/events.js";
export type { Pair, PairEvaluation } from "./train/pairs.js";
export { type Answer, ReftRewardTrainer, rewardsOf } from "./train/reward.js";
export {
  type Evaluation,
  ReftTrainerForCausalLM,
  type RunOptions,
  type TrainEnd,
  type TrainerOptions,
} from "./train/trainer.js";
