/** What `--data` names: a file on this machine, or a data set of the hub as owner/name:config#split. */

import { stat } from "node:fs/promises";
import { extname } from "node:path";
import { UserError } from "../errors.js";
import { ROW_FORMATS } from "../files/rows.js";
import { isRepoName } from "../hub/adapter.js";
import { loadDataset } from "../hub/dataset.js";
import { type RowFile, readRowFile } from "./examples.js";
import { given } from "./flags.js";
import { showDownloads } from "./progress.js";
import { count } from "./render.js";
import type { Terminal } from "./terminal.js";

/** What --help says of every option that names data. */
export const dataDescription =
  ".jsonl, .json, .csv, .tsv or .parquet; or a data set of the hub, owner/name:config#split";

export interface SourceOptions {
  /** For a data set of the hub. */
  readonly split?: string | undefined;
  readonly revision?: string | undefined;
  /** Splits to take where none is named, the dearest first. */
  readonly usualSplits: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** A data set's id with what stands behind it. */
export interface HubDataset {
  readonly id: string;
  readonly name: string | undefined;
  readonly split: string | undefined;
}

/**
 * Reads "owner/name", "owner/name:config", "owner/name#split" and all of it together; "hf://datasets/" may stand before it.
 *
 * @returns undefined for what names a file, or something that is there on this machine
 */
export async function hubDataset(text: string): Promise<HubDataset | undefined> {
  const start = "hf://datasets/";
  const explicit = text.startsWith(start);
  if (!explicit && (await stat(text).catch(() => undefined)) !== undefined) return undefined;
  const [, id = "", name, split] =
    /^([^:#]+)(?::([^#]+))?(?:#(.+))?$/.exec(explicit ? text.slice(start.length) : text) ?? [];
  if (explicit && id !== "") return { id, name, split };
  // A file that is not there is more likely than a data set called like one.
  return isRepoName(id) && !ROW_FORMATS.includes(extname(id).slice(1).toLowerCase()) ? { id, name, split } : undefined;
}

/**
 * The rows of what `--data` names; says on stderr what was taken of a data set of the hub.
 *
 * @throws UserError where there is no such file or data set, and for a split of a file
 */
export async function readSource(text: string, options: SourceOptions, terminal: Terminal): Promise<RowFile> {
  const { usualSplits, revision, signal } = options;
  const asked = await hubDataset(text);
  if (asked === undefined) {
    const said = options.split !== undefined ? "split" : revision !== undefined ? "revision" : undefined;
    if (said === undefined) return readRowFile(text);
    throw new UserError(
      `${text} is a file on this machine: it has no ${said}.`,
      `Leave the ${said} out, or name a data set of the hub: owner/name.`,
    );
  }
  if (asked.split !== undefined && options.split !== undefined)
    throw new UserError(`${text} names a split, and --split ${options.split} another one.`, "Name it once.");
  const split = asked.split ?? options.split;
  const display = showDownloads(terminal, asked.id);
  const found = await loadDataset(asked.id, {
    ...given({ name: asked.name, split, revision, signal }),
    usualSplits,
    onProgress: display.onProgress,
  }).finally(display.stop);
  const config = found.name === "default" ? "" : `:${found.name}`;
  const path = `${asked.id}${config}#${split ?? found.split}`;
  terminal.note(`Data set ${path}: ${count(found.rows.length, "row")} of ${count(found.files.length, "file")}`);
  return { path, rows: found.rows };
}
