/** `reft eval` of what is no answering: a classifier's labels, a reward model's scores, preferences between answers. */

import { glueColumns, glueSet } from "../data/recipes/glue.js";
import { UserError } from "../errors.js";
import type { AdapterConfig } from "../reft/adapter.js";
import type { Figures } from "../train/objective.js";
import type { RowFile } from "./examples.js";
import { given } from "./flags.js";
import { glueObjective, labelsObjective, rewardObjective } from "./head-objectives.js";
import { preferencesObjective } from "./language-objectives.js";
import {
  type CliObjective,
  detectObjective,
  type ObjectiveName,
  type ObjectiveOptions,
  objectiveOfHead,
} from "./objective.js";
import type { ModelChoice } from "./open-model.js";
import { showCount } from "./progress.js";
import { count, figureText } from "./render.js";
import { readDataSets } from "./task-data.js";
import type { Terminal } from "./terminal.js";

export interface HeadEvalOptions extends ModelChoice, ObjectiveOptions {
  readonly data: string;
  readonly split?: string | undefined;
  readonly dataRevision?: string | undefined;
  readonly limit?: number | undefined;
  readonly batchSize: number;
  readonly maxLength?: number | undefined;
  readonly template?: string | undefined;
  readonly json: boolean;
}

/** What is measured: what the adapter's head is for, or else what the rows show. */
export function objectiveOf(config: AdapterConfig | undefined, file: RowFile): ObjectiveName {
  if (config?.classifier !== undefined) return objectiveOfHead(config.classifier);
  const { name } = detectObjective(file);
  if (config !== undefined || name === "sft") return name;
  throw new UserError(
    name === "dpo"
      ? `${file.path} holds pairs: what is measured is how an edited model prefers, against the model as it is.`
      : `${file.path} holds texts with labels, which a trained classifier tells.`,
    "Pass --adapter, as reft train wrote it.",
  );
}

/** Measures by what was learned, and says it. */
export async function evaluateHead(
  name: Exclude<ObjectiveName, "sft">,
  config: AdapterConfig | undefined,
  file: RowFile,
  options: HeadEvalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const { labels, problemType } = config?.classifier ?? {};
  const own = { ...options, ...given({ labels, problemType: problemType ?? undefined }) };
  const objective =
    name === "dpo"
      ? preferencesObjective(file, own)
      : name === "reward"
        ? rewardObjective(file, own)
        : labelsObjective([file], own);
  const { figures, over, of } = await measure(objective, file, options, terminal, signal);
  if (options.json)
    terminal.result(JSON.stringify({ data: file.path, objective: name, examples: over, edited: figures }));
  else terminal.result(`${file.path}: ${count(over, of)}\nedited  ${figureText(figures)}`);
}

/** Measures a trained classifier by GLUE's figures; the data set is the file's, its folder's or the hub's config's name. */
export async function evaluateGlue(options: HeadEvalOptions, terminal: Terminal, signal: AbortSignal): Promise<void> {
  const { adapter, data } = options;
  if (adapter === undefined)
    throw new UserError("GLUE needs a trained classifier.", "Pass --adapter, as reft train --recipe glue-… wrote it.");
  // The hub's test splits have no labels.
  const source = { ...options, usualSplits: ["validation"], signal };
  const sets = await readDataSets(data, Object.keys(glueColumns), source, terminal);
  const datasets: object[] = [];
  for (const { set, file: whole } of sets) {
    const file = { ...whole, rows: whole.rows.slice(0, options.limit) };
    const { figures, over } = await measure(glueObjective(glueSet(set), options), file, options, terminal, signal);
    datasets.push({ dataset: set, examples: over, ...figures });
    if (!options.json) terminal.result(`${set}: ${count(over, "text")}, ${figureText(figures)}`);
  }
  if (options.json) terminal.result(JSON.stringify({ task: "glue", generator: adapter, datasets }));
}

interface Told {
  readonly figures: Figures;
  readonly over: number;
  readonly of: string;
}

function measure(
  objective: CliObjective,
  file: RowFile,
  options: HeadEvalOptions,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<Told> {
  const edit = (): never => {
    throw new Error("internal: measuring without an adapter");
  };
  return objective.open({ choice: options, terminal, signal, edit }, async (ready) => {
    const { examples } = ready.dataset(file);
    const args = { perDeviceEvalBatchSize: options.batchSize };
    const trainer = ready.trainer({ args, trainDataset: examples });
    const display = showCount(terminal, "measures", examples.length);
    const onProgress = (done: number): void => display.show(done);
    return ready.told(await trainer.evaluate(examples, { signal, onProgress }).finally(display.stop));
  });
}
