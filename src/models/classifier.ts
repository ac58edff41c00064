/** A model that classifies texts: a frozen body, and a head whose weights are trained along with the edits. */

import { z } from "zod";
import { UserError } from "../errors.js";
import type { Checkpoint } from "../files/checkpoint.js";
import { input, type Tensor, topological } from "../graph/tensor.js";
import type { HeadWeight } from "./classifier-heads.js";
import { bodyOf } from "./families.js";
import { type Encoder, type Family, tokenInputs } from "./family.js";
import { FrozenModel, type ModelParts } from "./frozen-model.js";
import { weightsOf } from "./weights.js";

/** transformers' names: one class a text, any number of them, or numbers to be told. */
export type ProblemType = "single_label_classification" | "multi_label_classification" | "regression";
export const problemTypes: readonly ProblemType[] = [
  "single_label_classification",
  "multi_label_classification",
  "regression",
];

export interface ClassifierOptions {
  /** Classes, or 1 for a number to be told; as the checkpoint's config says, else 2. */
  readonly numLabels?: number;
  /** Default: as the checkpoint's config says, else from the examples' labels. */
  readonly problemType?: ProblemType;
  /** Names of the classes; default the config's id2label, else LABEL_0, LABEL_1… */
  readonly labels?: readonly string[];
  /** Draw those of the head's weights anew that the checkpoint has for another number of labels. Default false: an error. */
  readonly ignoreMismatchedSizes?: boolean;
}

/** A weight of the head: what the checkpoint holds, or the deviation of the normal distribution to draw it from. */
export interface HeadValue {
  readonly shape: readonly number[];
  readonly first: Float32Array | { readonly deviation: number };
}

/** What training and adapters need to know of a classifier. */
export interface Classifier {
  readonly numLabels: number;
  /** The classes' names; a loaded adapter brings its own. */
  labels: readonly string[];
  /** Undefined until a trainer has seen labels. */
  problemType: ProblemType | undefined;
  /** Which token's state is read. */
  readonly row: "first" | "last";
  /** The trained weights by name. */
  readonly weights: Readonly<Record<string, HeadValue>>;
  /** Logits [N, C] of final states h [N, D]. */
  logits(h: Tensor, trained: (name: string) => Tensor): Tensor;
}

/** The head's weights that a checkpoint has and that are to be read from it, by their names there. */
export function storedHead(checkpoint: Checkpoint, options: ClassifierOptions): string[] {
  const family = bodyOf(checkpoint.config);
  const config = family.parse(checkpoint.config);
  const { numLabels } = labelsOf(checkpoint, options);
  const weights = Object.values(family.classifier.weights(weightsOf(checkpoint), config, numLabels));
  const present = weights.filter(({ stored }) => checkpoint.weights.has(stored));
  const fits = ({ stored, shape }: HeadWeight): boolean =>
    checkpoint.weights.get(stored)?.shape.join() === shape.join();
  const misfit = present.find((weight) => !fits(weight));
  if (misfit === undefined || options.ignoreMismatchedSizes === true)
    return present.filter(fits).map(({ stored }) => stored);
  throw new UserError(
    `${checkpoint.folder} has "${misfit.stored}" [${checkpoint.weights.get(misfit.stored)?.shape.join(", ")}]; ${numLabels} labels need [${misfit.shape.join(", ")}].`,
    "Pass the checkpoint's own numLabels, or ignoreMismatchedSizes: true for a new head.",
  );
}

export class SequenceClassifier extends FrozenModel<Family | Encoder> {
  readonly classifier: Classifier;

  /** @param stored the head's values that the checkpoint has, by their names there (see `storedHead`) */
  constructor(
    parts: ModelParts,
    options: ClassifierOptions = {},
    stored: ReadonlyMap<string, Float32Array> = new Map(),
  ) {
    super(parts, bodyOf);
    const head = this.family.classifier;
    const { numLabels, labels } = labelsOf(parts.checkpoint, options);
    // transformers' initializer_range; 0.02 in every family's default.
    const deviation = z.number().min(0).catch(0.02).parse(parts.checkpoint.config.initializer_range);
    const weights = Object.entries(head.weights(this.weights, this.config, numLabels)).map(
      ([name, { shape, stored: key }]): [string, HeadValue] => {
        const first = stored.get(key) ?? { deviation: name.endsWith("bias") ? 0 : deviation };
        return [name, { shape, first }];
      },
    );
    this.classifier = {
      numLabels,
      labels,
      problemType: options.problemType ?? problemOf(parts.checkpoint),
      row: head.row,
      weights: Object.fromEntries(weights),
      logits: (h, trained) => head.logits(h, this.weights, this.config, trained),
    };
  }

  head(): never {
    throw new Error(`internal: ${this.id} was loaded to classify texts; it has no next-token head`);
  }

  /** Parameters of the body as far as classifying uses it, and of the head. */
  get parameterCount(): number {
    const { hidden } = this.forward(tokenInputs(), (_site, h) => h);
    const trained = new Map(
      Object.entries(this.classifier.weights).map(([name, { shape }]) => [name, input(name, "float32", shape)]),
    );
    const logits = this.classifier.logits(hidden, (name) => trained.get(name) as Tensor);
    const used = topological([logits]).filter((t) => t.source.kind === "weight");
    return [...used, ...trained.values()].reduce((n, t) => n + t.shape.reduce<number>((a, b) => a * Number(b), 1), 0);
  }
}

function problemOf({ config }: Checkpoint): ProblemType | undefined {
  return problemTypes.find((name) => name === config.problem_type);
}

/** The number of labels as transformers counts them, and their names. */
function labelsOf(
  { config }: Checkpoint,
  options: ClassifierOptions,
): { readonly numLabels: number; readonly labels: readonly string[] } {
  const named = z.record(z.string(), z.string()).safeParse(config.id2label);
  const own = named.success ? named.data : {};
  // Hostile configs apart, the largest label sets in use have some tens of thousands.
  const count = z.number().int().min(1).max(1_000_000);
  const said = named.success ? Object.keys(own).length : config.num_labels;
  const numLabels = options.numLabels ?? options.labels?.length ?? count.catch(2).parse(said);
  if (!count.safeParse(numLabels).success)
    throw new UserError(`numLabels is ${numLabels}.`, "Give the number of classes, or 1 for a number to be told.");
  if (options.labels !== undefined && options.labels.length !== numLabels)
    throw new UserError(
      `labels names ${options.labels.length} classes, numLabels is ${numLabels}.`,
      "Name every class once, or leave one of the two out.",
    );
  const names = Array.from({ length: numLabels }, (_, i) => `LABEL_${i}`);
  const fits = Object.keys(own).length === numLabels;
  return { numLabels, labels: options.labels ?? names.map((name, i) => (fits ? (own[i] ?? name) : name)) };
}
