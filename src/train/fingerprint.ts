/** A fingerprint of a run: equal for runs that take the same course, so that a checkpoint is never taken up by another run. */

import { adapterConfig } from "../reft/adapter.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { TrainingArguments } from "./arguments.js";
import { hex, joinBytes, sha256 } from "./digest.js";

export interface Course {
  readonly model: ReftModel;
  readonly args: TrainingArguments;
  readonly totalSteps: number;
  /** All that each item says, as JSON. */
  readonly items: readonly unknown[];
  readonly evaluation: readonly unknown[];
  /** The objective's own, as JSON; undefined where it has none. */
  readonly settings: unknown;
}

/** Arguments that say where and when to write, not what to compute. */
const indifferent = new Set([
  "outputDir",
  "loggingSteps",
  "saveStrategy",
  "saveSteps",
  "saveTotalLimit",
  "reportTo",
  "frozenCacheMemory",
  "frozenCacheDir",
  "frozenCacheDisk",
]);

/** SHA-256 in hex over the settings, the base model's sizes (not its name: folders move), the edits and the data. */
export async function fingerprint({ model, args, totalSteps, items, evaluation, settings }: Course): Promise<string> {
  const { base, representations } = adapterConfig(model);
  const { id: _id, revision: _revision, ...sizes } = base;
  const kept = Object.entries(args).filter(([name]) => !indifferent.has(name));
  const all = [kept, totalSteps, sizes, representations, ...(settings === undefined ? [] : [settings])];
  // What is never evaluated changes nothing.
  const evaluated = args.evalStrategy === "no" ? [] : evaluation;
  let digest = await sha256(new TextEncoder().encode(JSON.stringify(all)));
  for (const data of [items, evaluated]) digest = await sha256(joinBytes(digest, await digestOf(data)));
  return hex(digest);
}

/** A chain over stretches of items: a large data set as one text would be longer than a string may be. */
async function digestOf(items: readonly unknown[]): Promise<Uint8Array> {
  let digest = new Uint8Array();
  for (let from = 0; from < items.length; from += 1000) {
    const stretch = items.slice(from, from + 1000);
    digest = await sha256(joinBytes(digest, new TextEncoder().encode(JSON.stringify(stretch))));
  }
  return digest;
}
