/** From what a user calls an adapter (a folder, a hub id) to a folder on this machine: a few named files of a repository. */
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { UserError } from "../errors.js";
import { exists } from "./cache.js";
import type { RemoteFile } from "./download.js";
import { printable } from "./request.js";
import { folderSource, type ModelSource, type ResolveOptions, resolveHub, type SnapshotKind } from "./resolve.js";
import type { Choose, Revision } from "./snapshot.js";

/** Files by name, each with the most bytes it may have; nothing else of a repository is fetched. */
export interface WantedFiles {
  /** What they make up, for messages: "an adapter". */
  readonly what: string;
  /** The one that tells what kind of repository this is comes first. */
  readonly required: Readonly<Record<string, number>>;
  readonly optional: Readonly<Record<string, number>>;
}

/**
 * Finds a folder on this machine, or else a hub id ("owner/name") whose wanted files are brought into the cache shared
 * with Python unless they are there already.
 *
 * What is neither a folder nor looks like a hub id is given back as a folder, which may not exist.
 *
 * @throws UserError when it cannot be fetched or stored, lacks a required file, or one is too large.
 */
export async function resolveFiles(
  idOrFolder: string,
  wanted: WantedFiles,
  options: ResolveOptions = {},
): Promise<ModelSource> {
  const found = idOrFolder === "" ? undefined : await stat(idOrFolder).catch(() => undefined);
  if (found !== undefined || !isRepoName(idOrFolder)) return folderSource(idOrFolder, resolve(idOrFolder), options);
  return fetchFiles(idOrFolder, wanted, options);
}

/** The wanted files of a repository on the hub, whatever lies on this machine under its name. */
export function fetchFiles(id: string, wanted: WantedFiles, options: ResolveOptions = {}): Promise<ModelSource> {
  return resolveHub(id, kindOf(wanted), options);
}

/** Whether this has the form owner/name; a path of two parts has it too. */
export function isRepoName(text: string): boolean {
  return /^[^/\\.~][^/\\:]*\/[^/\\]+$/.test(text);
}

function kindOf(wanted: WantedFiles): SnapshotKind {
  return {
    type: "model",
    state: async (folder) => {
      const there = await Promise.all(Object.keys(wanted.required).map((name) => exists(join(folder, name))));
      return there.every(Boolean) ? "whole" : "partial";
    },
    choose: chooser(wanted),
  };
}

function chooser({ what, required, optional }: WantedFiles): Choose {
  return async (revision) => {
    const pick = (name: string, most: number): RemoteFile[] => {
      const file = revision.listed.get(name);
      if (file === undefined) return [];
      if (file.size <= most) return [file];
      throw new UserError(
        `${name} of ${revision.context.id} has ${file.size} bytes, more than the ${most} that are read.`,
        `That is not ${what}: tell its authors, or choose another.`,
      );
    };
    for (const name of Object.keys(required)) if (!revision.listed.has(name)) throw lacking(name, what, revision);
    const files = [optional, required].flatMap((group) => Object.entries(group).flatMap((entry) => pick(...entry)));
    await revision.bring(files);
    return files;
  };
}

function lacking(name: string, what: string, { context, listed }: Revision): UserError {
  const names = [...listed.keys()];
  const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
  return new UserError(
    `${context.id} (revision "${context.revision}") has no ${name}: it is not ${what}.`,
    names.length === 0 ? "It is empty." : `It holds ${names.slice(0, 5).map(printable).join(", ")}${more}.`,
  );
}
