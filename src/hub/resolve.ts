/** From what a user calls a model (a folder, "builtin", a hub id) to a folder on this machine. */
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../errors.js";
import { cachedCommit, type RepoType, repoFolder, type SnapshotState, snapshotState } from "./cache.js";
import { HubUnreachable, hubContext, type Patience } from "./request.js";
import { hubSettings } from "./settings.js";
import { type Choose, chooseModel, fetchSnapshot, type OnProgress } from "./snapshot.js";

export interface ModelSource {
  /** As asked. */
  readonly id: string;
  /** The commit when from the hub. */
  readonly revision: string | undefined;
  readonly folder: string;
}

export interface ResolveOptions {
  /** Branch, tag or commit on the hub; "main" if not given. */
  readonly revision?: string;
  readonly token?: string;
  readonly cacheDir?: string;
  readonly endpoint?: string;
  /** Ask the hub whether a branch has moved on, even if the cache has it as it was; needs the network. */
  readonly refresh?: boolean;
  /** Take what is in the cache, and ask nobody. */
  readonly offline?: boolean;
  readonly fetch?: typeof fetch;
  /** Stops the download; what has arrived is kept for the next time. */
  readonly signal?: AbortSignal;
  /** Bytes of one file; several files may take turns. */
  readonly onProgress?: OnProgress;
  readonly patience?: Partial<Patience>;
}

/** The model inside this package; src/hub and dist/hub are equally deep. */
const builtinFolder = fileURLToPath(new URL("../../models/builtin", import.meta.url));

/**
 * Finds a model: "builtin", an existing folder, or a hub id ("owner/name"), downloaded into the cache shared with Python
 * unless it is there already.
 *
 * A model that is whole in the cache is used without asking the hub (but see `refresh`).
 *
 * @throws UserError when it does not exist, needs a licence or login, or cannot be fetched or stored; and the signal's
 * reason when aborted.
 */
export async function resolveModel(idOrFolder: string, options: ResolveOptions = {}): Promise<ModelSource> {
  const local = await localFolder(idOrFolder);
  if (local === undefined) return resolveHub(idOrFolder, modelSnapshot, options);
  return folderSource(idOrFolder, local, options);
}

/** A folder on this machine as a source. */
export function folderSource(id: string, folder: string, { revision }: ResolveOptions): ModelSource {
  if (revision === undefined) return { id, revision: undefined, folder };
  throw new UserError(
    `${id} is a folder on this machine: it has no revision "${revision}".`,
    "Leave the revision out, or give a hub id.",
  );
}

async function localFolder(idOrFolder: string): Promise<string | undefined> {
  if (idOrFolder === "builtin") return builtinFolder;
  const found = idOrFolder === "" ? undefined : await stat(idOrFolder).catch(() => undefined);
  if (found?.isDirectory()) return resolve(idOrFolder);
  if (found !== undefined) {
    throw new UserError(`${idOrFolder} is a file.`, "Give the folder with config.json and model.safetensors in it.");
  }
  return undefined;
}

/** What is wanted of a repository, and how to tell how much of it is there. */
export interface SnapshotKind {
  readonly type: RepoType;
  state(folder: string): Promise<SnapshotState>;
  readonly choose: Choose;
}

const modelSnapshot: SnapshotKind = { type: "model", state: snapshotState, choose: chooseModel };

/** Finds a repository in the cache, or brings it there. */
export async function resolveHub(id: string, kind: SnapshotKind, options: ResolveOptions): Promise<ModelSource> {
  checkId(id);
  const revision = checkRevision(options.revision ?? "main");
  const settings = await hubSettings(options);
  const repo = repoFolder(settings.cacheDir, id, kind.type);
  const source = (commit: string): ModelSource => ({ id, revision: commit, folder: join(repo, "snapshots", commit) });
  const cached = await cachedCommit(repo, revision);
  const state: SnapshotState = cached === undefined ? "partial" : await kind.state(source(cached).folder);
  const stale = options.refresh === true && cached !== revision;
  if (cached !== undefined && state === "whole" && (!stale || settings.offline)) return source(cached);
  if (settings.offline) {
    if (cached !== undefined && state === "usable") return source(cached);
    throw new UserError(
      `${id} (revision "${revision}") is not in the cache ${settings.cacheDir}, and ${options.offline === true ? "only that is asked for" : "HF_HUB_OFFLINE is set"}.`,
      `Unset HF_HUB_OFFLINE to download it, or give a ${kind.type === "model" ? "folder" : "file"}; there is none called ${id} here.`,
    );
  }
  const context = hubContext(settings, id, revision, { ...options, type: kind.type });
  try {
    return source(await fetchSnapshot(context, kind.choose, options.onProgress ?? (() => undefined)));
  } catch (error) {
    // Without a network, a model that can run is better than none.
    if (error instanceof HubUnreachable && cached !== undefined && state !== "partial") return source(cached);
    throw error;
  }
}

/** Throws UserError for what cannot be a hub id: it becomes part of addresses and paths. */
export function checkId(id: string): void {
  if (/^(~|\.{0,2}[/\\]|\.{1,2}$|[A-Za-z]:[/\\])|[/\\]$|\\|\/.*\//.test(id)) {
    throw new UserError(`The folder ${id} does not exist.`, 'Check the path, or give a hub id like "owner/name".');
  }
  const name = "[A-Za-z0-9_](?:[\\w.-]{0,94}\\w)?";
  if (!new RegExp(`^(?:${name}/)?${name}$`).test(id) || /--|\.\./.test(id)) {
    throw new UserError(
      `${JSON.stringify(id)} is neither a folder here nor a hub id.`,
      'A hub id is "owner/name" of letters, digits, "-", "_" and ".".',
    );
  }
}

/** A revision becomes a path under refs/. */
export function checkRevision(revision: string): string {
  if (/^[\w.+-]+(\/[\w.+-]+)*$/.test(revision) && !/(^|\/)\.|\.\./.test(revision)) return revision;
  throw new UserError(`${JSON.stringify(revision)} is not a revision.`, "Give a branch, a tag or a commit.");
}
