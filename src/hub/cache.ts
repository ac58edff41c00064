/** The cache folders shared with Python's huggingface_hub: models--owner--name/{blobs,refs,snapshots}, and datasets--…. */
import { randomUUID } from "node:crypto";
import { copyFile, mkdir, readFile, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { parseWeightIndex, weightsFile, weightsIndexFile } from "../files/checkpoint.js";
import { errorCode, writeFileAtomic } from "../files/write-node.js";

/** What a snapshot in the cache is good for. */
export type SnapshotState = "whole" | "usable" | "partial";

/** What kinds of repositories are read. */
export type RepoType = "model" | "dataset";

export function repoFolder(cacheDir: string, id: string, type: RepoType): string {
  return join(cacheDir, `${type}s--${id.replaceAll("/", "--")}`);
}

export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** The commit that a branch or tag was at when it was last asked for; a commit stands for itself. */
export async function cachedCommit(repo: string, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return revision;
  const text = await readFile(join(repo, "refs", revision), "utf8").catch(() => "");
  return isCommit(text.trim()) ? text.trim() : undefined;
}

export async function writeRef(repo: string, revision: string, commit: string): Promise<void> {
  if (!isCommit(revision)) await writeFileAtomic(join(repo, "refs", revision), commit);
}

/** Whether a file is there, or a link to one. */
export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false, // absent, or a link whose blob is
  );
}

/**
 * What of a model is in a snapshot: configuration and all weights ("usable"), and the tokenizer too ("whole").
 *
 * A file gets its name here only when its blob is complete, and the weights get theirs last, so names are enough.
 */
export async function snapshotState(snapshot: string): Promise<SnapshotState> {
  if (!(await exists(join(snapshot, "config.json"))) || !(await hasWeights(snapshot))) return "partial";
  return (await exists(join(snapshot, "tokenizer.json"))) ? "whole" : "usable";
}

async function hasWeights(snapshot: string): Promise<boolean> {
  if (await exists(join(snapshot, weightsFile))) return true;
  const index = join(snapshot, weightsIndexFile);
  if (!(await exists(index))) return false;
  const shards = [...parseWeightIndex(await readFile(index, "utf8"), index).keys()];
  const found = await Promise.all(shards.map((shard) => exists(join(snapshot, shard))));
  return found.every(Boolean);
}

/** Gives a blob its name in a snapshot: by a relative link, so that the cache can be moved, or else by a copy. */
export async function nameBlob(blob: string, path: string, symlinks: boolean): Promise<void> {
  const target = relative(dirname(path), blob);
  if ((await readlink(path).catch(() => "")) === target) return;
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomUUID().slice(0, 8)}.tmp`;
  try {
    if (!symlinks || !(await tryLink(target, temporary))) await copyFile(blob, temporary);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** False where links need a privilege (Windows) or the file system has none. */
async function tryLink(target: string, path: string): Promise<boolean> {
  try {
    await symlink(target, path);
    return true;
  } catch (error) {
    if (["EPERM", "EACCES", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(errorCode(error) ?? "")) return false;
    throw error;
  }
}
