/** Data sets of the hub: an id in, rows out, by way of the cache shared with Python's huggingface_hub. */

import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError } from "../errors.js";
import { readFileCapped } from "../files/read-node.js";
import type { Row } from "../files/rows.js";
import { MAX_ROW_BYTES, readRows } from "../files/rows-node.js";
import { writeFileAtomic } from "../files/write-node.js";
import { exists, type SnapshotState } from "./cache.js";
import {
  type ChosenFiles,
  chooseFiles,
  convertedRevision,
  isDataFile,
  layoutOf,
  NothingReadable,
} from "./dataset-layout.js";
import type { RemoteFile } from "./download.js";
import { type ModelSource, type ResolveOptions, resolveHub, type SnapshotKind } from "./resolve.js";
import type { Choose } from "./snapshot.js";

export interface LoadDatasetOptions extends ResolveOptions {
  /** The config, where the data set has several. */
  readonly name?: string | undefined;
  /** "train" if not given; with a part of it: "train[:100]", "test[10%:20%]", "train[-50:]". */
  readonly split?: string | undefined;
  /** Splits to take where none is named, the dearest first. Default: train. */
  readonly usualSplits?: readonly string[] | undefined;
}

/** The rows of one split, and where they are from. */
export interface LoadedDataset {
  readonly id: string;
  /** The config's name. */
  readonly name: string;
  readonly split: string;
  /** The commit; undefined for a folder on this machine. */
  readonly revision: string | undefined;
  /** Files in the repository. */
  readonly files: readonly string[];
  /** `line` is that of the file where there is one file, else a row's number from 1. */
  readonly rows: readonly Row[];
}

/** A card is a page for people, but some hold tables of hundreds of configs. */
const maxCardBytes = 5e6;
const cardName = "README.md";

/**
 * The rows of a data set on the hub ("owner/name"), by the rules of Python's `datasets`: Parquet, JSON, JSON lines, CSV or TSV
 * files by the configs that its card names or by their own names, or else the hub's Parquet copy of it.
 *
 * @throws UserError when it does not exist, is private or gated, has no such config or split, holds nothing that can be
 * read or more than fits into memory; and the signal's reason when aborted
 */
export async function loadDataset(id: string, options: LoadDatasetOptions = {}): Promise<LoadedDataset> {
  const { name, split, usualSplits = ["train"], ...resolve } = options;
  const { split: asked, part } = parseSplit(split);
  const choose = (paths: readonly string[], card: string | undefined, revision: string): ChosenFiles =>
    chooseFiles(layoutOf(paths, card, revision), { config: name, split: asked, usualSplits }, id);
  const { source, chosen } = await findFiles(id, choose, resolve);
  const rows = await rowsOf(source.folder, chosen.files);
  const label = { name: chosen.config, split: chosen.split, files: chosen.files };
  return {
    id,
    ...label,
    revision: source.revision,
    rows: part === undefined ? rows : slice(rows, part, `${id}#${split}`),
  };
}

type ChooseFiles = (paths: readonly string[], card: string | undefined, revision: string) => ChosenFiles;

interface Found {
  readonly source: ModelSource;
  readonly chosen: ChosenFiles;
}

/** On the branch asked for, or else on "main", or else in the hub's own Parquet copy. */
async function findFiles(id: string, choose: ChooseFiles, options: ResolveOptions): Promise<Found> {
  if (options.revision !== undefined) return fetchFiles(id, choose, options, options.revision);
  try {
    return await fetchFiles(id, choose, options, "main");
  } catch (error) {
    // Offline, what "main" lacks may be there as a copy.
    if (!(error instanceof NothingReadable) && !isMissing(error)) throw error;
    return fetchFiles(id, choose, options, convertedRevision).catch((second: unknown) => {
      throw second instanceof UserError && isAbsent(second) ? error : second;
    });
  }
}

const isMissing = (error: unknown): boolean =>
  error instanceof UserError && / is not in the cache /.test(error.message);
const isAbsent = (error: UserError): boolean => / has no revision | is not in the cache /.test(error.message);

async function fetchFiles(id: string, choose: ChooseFiles, options: ResolveOptions, revision: string): Promise<Found> {
  const kind = snapshotOf(choose, revision);
  const source = await resolveHub(id, kind, { ...options, revision });
  return { source, chosen: await chosenIn(source.folder, choose, revision) };
}

/** What was listed of a commit, beside the folders that Python knows: without it, a snapshot that lacks files looks whole. */
function listingPath(snapshot: string): string {
  return join(snapshot, "../..", ".reft", `${basename(snapshot)}.json`);
}

async function readListing(snapshot: string): Promise<readonly string[] | undefined> {
  try {
    const paths: unknown = JSON.parse(await readFile(listingPath(snapshot), "utf8"));
    return Array.isArray(paths) && paths.every((path) => typeof path === "string") ? paths : undefined;
  } catch {
    return undefined;
  }
}

/** The files by the listing, or, of a snapshot that another program has made, by what is there. */
async function chosenIn(snapshot: string, choose: ChooseFiles, revision: string): Promise<ChosenFiles> {
  const paths = (await readListing(snapshot)) ?? (await filesUnder(snapshot));
  const card = await readFileCapped(join(snapshot, cardName), maxCardBytes).catch(() => undefined);
  return choose(paths, card && new TextDecoder().decode(card), revision);
}

async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true }).catch(() => []);
  return entries.map((path) => path.replaceAll("\\", "/"));
}

function snapshotOf(choose: ChooseFiles, revision: string): SnapshotKind {
  return {
    type: "dataset",
    state: async (folder): Promise<SnapshotState> => {
      const listed = await readListing(folder);
      const chosen = await chosenIn(folder, choose, revision).catch(() => undefined);
      if (chosen === undefined) return "partial";
      const there = await Promise.all(chosen.files.map((file) => exists(join(folder, file))));
      if (!there.every(Boolean)) return "partial";
      return listed !== undefined ? "whole" : shardsComplete(chosen.files) ? "usable" : "partial";
    },
    choose: chooser(choose, revision),
  };
}

/** Whether files called …-00002-of-00005 are all five. */
function shardsComplete(files: readonly string[]): boolean {
  const counts = files.flatMap((file) => /-\d{5}-of-(\d{5})/.exec(file)?.[1] ?? []);
  return counts.length === 0 || counts.every((count) => Number(count) === counts.length);
}

function chooser(choose: ChooseFiles, revision: string): Choose {
  return async ({ context: { id }, repo, commit, listed, bring, blobOf }) => {
    const card = listed.get(cardName);
    const small = card !== undefined && card.size <= maxCardBytes ? [card] : [];
    await bring(small);
    const text = small[0] && (await readFile(blobOf(small[0]), "utf8"));
    const paths = [...listed.keys()].filter(isDataFile);
    const { split, files: names } = choose(paths, text, revision);
    const files = names.map((name) => listed.get(name) as RemoteFile);
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    if (bytes > MAX_ROW_BYTES)
      throw new UserError(
        `${split} of ${id} has ${bytes} bytes in ${files.length} files; data sets are read up to ${MAX_ROW_BYTES}, since they are held in memory.`,
        "Choose another split or config, or download one of its files and name that: ReFT learns from tens to thousands of examples.",
      );
    await bring(files);
    await writeFileAtomic(listingPath(join(repo, "snapshots", commit)), JSON.stringify(paths));
    return [...small, ...files];
  };
}

async function rowsOf(folder: string, files: readonly string[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const file of files) for (const row of await readRows(join(folder, file))) rows.push(row);
  return files.length === 1 ? rows : rows.map(({ value }, i) => ({ line: i + 1, value }));
}

/** A bound of a part: rows, or a share of them. */
interface Bound {
  readonly value: number;
  readonly percent: boolean;
}

interface Part {
  readonly from: Bound | undefined;
  readonly to: Bound | undefined;
}

/** "train[10%:20%]" as `datasets` writes it. */
function parseSplit(text: string | undefined): { readonly split: string | undefined; readonly part: Part | undefined } {
  if (text === undefined) return { split: undefined, part: undefined };
  const [, split = "", inside] = /^([^[\]]+)(?:\[([^[\]]*)\])?$/.exec(text) ?? [];
  const [, from = "", to = ""] = /^(-?\d+%?)?:(-?\d+%?)?$/.exec(inside ?? ":") ?? [undefined, "?"];
  if (split === "" || from === "?")
    throw new UserError(
      `${JSON.stringify(text)} is no split.`,
      "Write its name, or a part of it as in train[:100], train[-50:] or test[10%:20%].",
    );
  const bound = (at: string): Bound | undefined =>
    at === "" ? undefined : { value: Number.parseInt(at, 10), percent: at.endsWith("%") };
  return { split, part: inside === undefined ? undefined : { from: bound(from), to: bound(to) } };
}

/** As Python slices a list; shares are rounded to whole rows. */
function slice(rows: readonly Row[], { from, to }: Part, name: string): readonly Row[] {
  const place = (bound: Bound | undefined, otherwise: number): number =>
    bound === undefined ? otherwise : bound.percent ? Math.round((bound.value / 100) * rows.length) : bound.value;
  const found = rows.slice(place(from, 0), place(to, rows.length));
  if (found.length > 0) return found;
  throw new UserError(`${name} holds no rows: the split has ${rows.length}.`, "Give other bounds.");
}
