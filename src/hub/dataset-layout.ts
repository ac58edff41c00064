/** Which files of a repository make up which split of which config: the rules of Python's `datasets`. Pure: paths and a card in. */

import { parseDocument } from "yaml";
import { z } from "zod";
import { UserError } from "../errors.js";
import { ROW_FORMATS } from "../files/rows.js";
import { matchesGlob } from "./glob.js";

/** Files by split, in order. */
export type Splits = ReadonlyMap<string, readonly string[]>;

export interface DatasetLayout {
  readonly configs: ReadonlyMap<string, Splits>;
  /** The config that is meant where none is named; undefined where one has to be. */
  readonly usual: string | undefined;
}

/** Where the hub keeps its own Parquet copy of a data set: CONFIG/SPLIT/0000.parquet. */
export const convertedRevision = "refs/convert/parquet";

/** Files that describe data instead of holding it. */
const descriptions = new Set(["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"]);
/** The words that tell a split, in file and folder names. */
const splitWords = {
  train: ["train", "training"],
  validation: ["validation", "valid", "dev", "val"],
  test: ["test", "testing", "eval", "evaluation"],
} as const;
const extension = (path: string): string => /\.([^./]+)$/.exec(path)?.[1]?.toLowerCase() ?? "";
/** Formats that are read as one. */
const family = (path: string): string => extension(path).replace(/^(jsonl|ndjson)$/, "json");

/**
 * Whether a listed path may be written under a snapshot and holds rows that can be read.
 *
 * Paths come from strangers: none that would lead out of its folder, or be hidden in it.
 */
export function isDataFile(path: string): boolean {
  const segments = path.split("/");
  const plain = segments.every((name) => name !== "" && !name.startsWith(".") && !name.startsWith("__"));
  if (!plain || /[\\:\p{Cc}]/u.test(path) || path.length > 500) return false;
  return ROW_FORMATS.includes(extension(path)) && !descriptions.has(segments.at(-1) as string);
}

/** @param card README.md, which may name configs and their files */
export function layoutOf(paths: readonly string[], card: string | undefined, revision: string): DatasetLayout {
  const data = paths.filter(isDataFile).sort();
  if (revision === convertedRevision) return convertedLayout(data);
  const configs = cardConfigs(card);
  if (configs.length === 0) return plainLayout(data);
  const told = configs.map(({ config_name: name, data_files: files, data_dir: dir = "" }) => {
    const inside = under(data, dir);
    const splits = files === undefined ? guessSplits(inside, dir) : namedSplits(inside, files, dir);
    return [name, splits] as const;
  });
  const [only, ...others] = configs;
  const usual = others.length === 0 ? only : configs.find((c) => c.default === true || c.config_name === "default");
  return { configs: new Map(told), usual: usual?.config_name };
}

const patterns = z.union([z.string(), z.array(z.string())]);
const cardSchema = z.array(
  z.object({
    config_name: z.string(),
    data_files: z
      .union([patterns, z.array(z.object({ split: z.string(), path: patterns })), z.record(z.string(), patterns)])
      .optional(),
    data_dir: z.string().optional(),
    default: z.boolean().optional(),
  }),
);
type CardConfig = z.infer<typeof cardSchema>[number];
type DataFiles = NonNullable<CardConfig["data_files"]>;

/** The configs of a card's YAML head; none where it has none, or none that can be understood. */
function cardConfigs(card: string | undefined): readonly CardConfig[] {
  const [, head] = /^\uFEFF?---\r?\n([\s\S]*?)\r?\n---(?:\r?\n|$)/.exec(card ?? "") ?? [];
  if (head === undefined) return [];
  const document = parseDocument(head);
  if (document.errors.length > 0) return [];
  const content: unknown = document.toJS({ maxAliasCount: 10 });
  const { configs } = typeof content === "object" && content !== null ? (content as { configs?: unknown }) : {};
  return cardSchema.safeParse(configs).data ?? [];
}

function under(data: readonly string[], dir: string): readonly string[] {
  const prefix = dir.replace(/^(\.?\/)+|\/+$/g, "");
  return prefix === "" || prefix === "." ? data : data.filter((path) => path.startsWith(`${prefix}/`));
}

/** data_files of a card: a pattern or patterns (all of them train), or patterns by split. */
function namedSplits(data: readonly string[], files: DataFiles, dir: string): Splits {
  const prefix = dir === "" ? "" : `${dir.replace(/\/+$/, "")}/`;
  const wanted = new Map<string, string[]>();
  const want = (split: string, path: string | readonly string[]): void => {
    const globs = [path].flat().map((pattern) => `${prefix}${pattern}`);
    wanted.set(split, [...(wanted.get(split) ?? []), ...globs]);
  };
  if (typeof files === "string") want("train", files);
  else if (!Array.isArray(files)) for (const [split, path] of Object.entries(files)) want(split, path);
  else for (const item of files) typeof item === "string" ? want("train", item) : want(item.split, item.path);
  const matching = (globs: readonly string[]): string[] =>
    data.filter((file) => globs.some((glob) => matchesGlob(file, glob)));
  return oneFormat([...wanted].map(([split, globs]) => [split, matching(globs)]));
}

/** The hub's own copy, of which a part may be called partial-SPLIT. */
function convertedLayout(data: readonly string[]): DatasetLayout {
  const configs = new Map<string, Map<string, string[]>>();
  for (const path of data) {
    const [, config, split] = /^([^/]+)\/(?:partial-)?([^/]+)\/[^/]+$/.exec(path) ?? [];
    if (config === undefined || split === undefined) continue;
    const splits = configs.get(config) ?? new Map<string, string[]>();
    configs.set(config, splits.set(split, [...(splits.get(split) ?? []), path]));
  }
  const [only, ...others] = configs.keys();
  return { configs, usual: others.length === 0 ? only : configs.has("default") ? "default" : undefined };
}

/** Without a word in the card: one config of all files, and one for each folder at the top that is no split's. */
function plainLayout(data: readonly string[]): DatasetLayout {
  const folders = new Set(data.flatMap((path) => (path.includes("/") ? [path.slice(0, path.indexOf("/"))] : [])));
  const named = [...folders].filter((name) => name !== "data" && wordOf(name) === undefined);
  const whole = ["default", guessSplits(data, "")] as const;
  const parts = named.map((name) => [name, guessSplits(under(data, name), name)] as const);
  const configs = new Map([whole, ...parts].filter(([, splits]) => splits.size > 0));
  // Several such folders and nothing beside them: taken together they would be a mixture that nobody asked for.
  const mixed = named.length > 1 && data.every((path) => named.some((name) => path.startsWith(`${name}/`)));
  return { configs, usual: mixed || configs.size === 0 ? undefined : "default" };
}

/** By the first rule that finds anything: data/SPLIT-00000-of-00001.…, folders named after splits, files, all of it train. */
function guessSplits(data: readonly string[], dir: string): Splits {
  const prefix = dir === "" ? "" : `${dir.replace(/\/+$/, "")}/`;
  const inside = (path: string): string => path.slice(prefix.length);
  const sharded = (path: string): string | undefined => /^data\/(\w[\w.]*)-\d{5}-of-\d{5}.*\./.exec(inside(path))?.[1];
  const byFolder = (path: string): string | undefined => firstWord(inside(path).split("/").slice(0, -1));
  const byName = (path: string): string | undefined => firstWord(inside(path).split("/").slice(-1));
  for (const splitOf of [sharded, byFolder, byName]) {
    const found = new Map<string, string[]>();
    for (const path of data) {
      const split = splitOf(path);
      if (split !== undefined) found.set(split, [...(found.get(split) ?? []), path]);
    }
    if (found.size > 0) return oneFormat([...found].sort(([a], [b]) => splitRank(a) - splitRank(b)));
  }
  return data.length === 0 ? new Map() : oneFormat([["train", data]]);
}

const splitNames = Object.keys(splitWords) as (keyof typeof splitWords)[];
const splitRank = (split: string): number => (splitNames as string[]).indexOf(split) >>> 0;

function firstWord(names: readonly string[]): string | undefined {
  for (const name of names) {
    const split = wordOf(name);
    if (split !== undefined) return split;
  }
  return undefined;
}

/** The split that a name tells by a word of its own: dev_0.csv is validation, devices.csv is none. */
function wordOf(name: string): string | undefined {
  const words = new Set(name.split(/[-._ 0-9]/));
  return splitNames.find((split) => splitWords[split].some((word) => words.has(word)));
}

/** The same rows often lie there in several formats: the commonest is taken, of equals Parquet, as Python does. */
function oneFormat(found: readonly (readonly [string, readonly string[]])[]): Splits {
  const counts = new Map<string, number>();
  for (const path of found.flatMap(([, files]) => files)) counts.set(family(path), (counts.get(family(path)) ?? 0) + 1);
  const rank = ([name, n]: readonly [string, number]): number => n + (name === "parquet" ? 0.5 : 0);
  const [best] = [...counts].sort((a, b) => rank(b) - rank(a) || (a[0] < b[0] ? -1 : 1));
  const kept = found.map(([split, files]) => [split, files.filter((path) => family(path) === best?.[0])] as const);
  return new Map(kept.filter(([, files]) => files.length > 0));
}

/** What is wanted of a data set. */
export interface DatasetChoice {
  readonly config: string | undefined;
  readonly split: string | undefined;
  /** Splits to take where none is named, the dearest first. */
  readonly usualSplits: readonly string[];
}

export interface ChosenFiles {
  readonly config: string;
  readonly split: string;
  readonly files: readonly string[];
}

/** Nothing in a repository can be read; a copy of it on another branch may. */
export class NothingReadable extends UserError {}

/** @throws UserError where the config or split is not there, or several are and none is named; it lists what is there */
export function chooseFiles({ configs, usual }: DatasetLayout, choice: DatasetChoice, id: string): ChosenFiles {
  const readable = [...configs].filter(([, splits]) => splits.size > 0);
  if (readable.length === 0)
    throw new NothingReadable(
      `${id} holds no file that could be read as rows.`,
      `Read are ${ROW_FORMATS.map((format) => `.${format}`).join(", ")}; choose another data set, or convert it with Python's datasets.`,
    );
  const names = readable.map(([name]) => name);
  const config = choice.config ?? usual ?? (names.length === 1 ? names[0] : undefined);
  const splits = config === undefined ? undefined : configs.get(config);
  if (config === undefined || splits === undefined || splits.size === 0)
    throw new UserError(
      config === undefined
        ? `${id} has ${names.length} configs, and none is named.`
        : `${id} has no config "${config}".`,
      `Name one, as in ${id}:${names[0]}. There are ${shown(names)}.`,
    );
  const there = [...splits.keys()];
  const split =
    choice.split ?? choice.usualSplits.find((name) => splits.has(name)) ?? (there.length === 1 ? there[0] : undefined);
  const files = split === undefined ? undefined : splits.get(split);
  const place = names.length === 1 ? id : `${id}:${config}`;
  if (split === undefined || files === undefined)
    throw new UserError(
      split === undefined ? `${place} has no ${choice.usualSplits[0]} split.` : `${place} has no split "${split}".`,
      `Name one, as in ${place}#${there[0]}. There ${there.length === 1 ? "is" : "are"} ${shown(there)}.`,
    );
  return { config, split, files };
}

/** Names from a stranger, as many as a person reads. */
function shown(names: readonly string[]): string {
  const most = 12;
  const more = names.length > most ? ` and ${names.length - most} more` : "";
  return `${names
    .slice(0, most)
    .map((name) => name.replace(/\p{Cc}+/gu, " ").slice(0, 80))
    .join(", ")}${more}`;
}
