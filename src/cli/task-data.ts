/** The data sets of a task: of the hub, one file, or a folder laid out as LLM-Adapters' (boolq/test.json …). */

import { stat } from "node:fs/promises";
import { basename, dirname, extname, join, resolve } from "node:path";
import { UserError } from "../errors.js";
import { ROW_FORMATS } from "../files/rows.js";
import { hubDataset, readSource } from "./data-source.js";
import { type RowFile, readRowFile } from "./examples.js";
import type { Terminal } from "./terminal.js";

/** A data set by its name. */
export interface DataSetFile {
  readonly set: string;
  readonly file: RowFile;
}

const splits = new Set(["train", "test", "validation", "valid", "dev", "eval"]);

/** boolq/test.json and boolq.json are both boolq; the hub's boolq/test-00000-of-00001.parquet is too. */
export function setName(path: string): string {
  const stem = basename(path, extname(path));
  const isSplit = splits.has(stem.replace(/-\d+-of-\d+$/, "").toLowerCase());
  return isSplit ? basename(dirname(resolve(path))) : stem;
}

export interface DataSetOptions {
  /** Default: test, or of the hub's what `usualSplits` says. */
  readonly split?: string | undefined;
  readonly dataRevision?: string | undefined;
  /** For a data set of the hub. */
  readonly usualSplits: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/**
 * The files that `--data` names, or the data set of the hub.
 *
 * @param sets the task's data sets, looked for where it is a folder
 * @throws UserError where there is none
 */
export async function readDataSets(
  path: string,
  sets: readonly string[],
  options: DataSetOptions,
  terminal: Terminal,
): Promise<DataSetFile[]> {
  const { split = "test", usualSplits, dataRevision: revision, signal } = options;
  const hub = await hubDataset(path);
  if (hub !== undefined) {
    const file = await readSource(path, { split: options.split, revision, usualSplits, signal }, terminal);
    // gsm8k is openai/gsm8k:main, cola is nyu-mll/glue:cola.
    const names = [hub.name, basename(hub.id)].map((name) => name?.toLowerCase());
    const set = sets.find((own) => names.includes(own.toLowerCase())) ?? hub.name ?? basename(hub.id);
    return [{ set, file }];
  }
  if ((await kindOf(path)) !== "folder") return [{ set: setName(path), file: await readRowFile(path) }];
  const found: DataSetFile[] = [];
  for (const set of sets) {
    const places = ROW_FORMATS.flatMap((format) => [
      join(path, set, `${split}.${format}`),
      join(path, `${set}.${format}`),
    ]);
    for (const place of places) {
      if ((await kindOf(place)) !== "file") continue;
      found.push({ set, file: await readRowFile(place) });
      break;
    }
  }
  if (found.length > 0) return found;
  // The folder of a single data set.
  for (const format of ROW_FORMATS) {
    const place = join(path, `${split}.${format}`);
    if ((await kindOf(place)) === "file") return [{ set: setName(place), file: await readRowFile(place) }];
  }
  throw new UserError(
    `${path} holds none of ${sets.join(", ")}.`,
    `Put them there as ${sets[0]}/${split}.json or ${sets[0]}.json, or name a file.`,
  );
}

async function kindOf(path: string): Promise<"file" | "folder" | undefined> {
  try {
    return (await stat(path)).isDirectory() ? "folder" : "file";
  } catch {
    return undefined;
  }
}
