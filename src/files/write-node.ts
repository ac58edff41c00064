/** Files and folders that appear whole or not at all: written beside, forced to disk, then renamed into place. */
import { randomUUID } from "node:crypto";
import { chmod, type FileHandle, lstat, mkdir, open, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { invariant, UserError } from "../errors.js";

/** What to do about an error code of the operating system. */
const advice: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  ENOSPC: ["the disk is full", "Free some space or choose another place."],
  EDQUOT: ["your disk quota is used up", "Free some space or choose another place."],
  EFBIG: [
    "the file would be larger than this system allows",
    'Choose another place, or raise the limit ("ulimit -f").',
  ],
  EACCES: ["permission denied", "Choose a place you may write to, or change its permissions."],
  EPERM: ["permission denied", "Choose a place you may write to, or change its permissions."],
  EROFS: ["the file system is read-only", "Choose another place."],
  ENOTDIR: ["a part of that path is a file, not a folder", "Choose another place."],
  EEXIST: ["a part of that path is a file, not a folder", "Choose another place."],
  EISDIR: ["it is a folder", "Choose another name."],
  ENOENT: ["it does not exist", "Check the path."],
  ENOTEMPTY: ["somebody else is writing there", "Try again, or choose another place."],
  ENAMETOOLONG: ["the name is too long", "Choose a shorter one."],
  EMFILE: ["too many files are open", 'Close some, or raise the limit ("ulimit -n").'],
  EIO: ["the disk reports an error", "Check the disk, or choose another place."],
};

/** The operating system's error code ("ENOENT") if the error carries one. */
export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error && "syscall" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** An operating system's error as a UserError that says what could not be done and why; any other error unchanged. */
export function fileError(error: unknown, action: string): unknown {
  const code = errorCode(error);
  if (code === undefined) return error;
  const [reason, hint] = advice[code] ?? [(error as Error).message, "Check that place, or choose another."];
  return new UserError(`Cannot ${action}: ${reason} (${code}).`, hint, { cause: error });
}

/** Where old files wait, inside the temporary folder, until the new ones are in place. */
const asideFolder = ".old";

/** A name beside `path`, hidden and unique; the suffix tells people what a leftover of a killed process is. */
function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomUUID().slice(0, 8)}.tmp`);
}

/** What puts bytes into a new file. */
type Fill = (handle: FileHandle) => Promise<unknown>;

/** Writes a new file and waits until the disk has it: a rename must never become durable before the bytes it names. */
async function writeDurably(path: string, bytes: Uint8Array | string | Fill): Promise<void> {
  const handle = await open(path, "wx");
  try {
    await (typeof bytes === "function" ? bytes(handle) : handle.writeFile(bytes));
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes renames in a folder durable. Not every system lets a folder be opened, and the data itself is safe already. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r").catch(() => undefined);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

/**
 * Writes a file so that a reader, a crash or a full disk never meets half of it; folders on the way are made.
 *
 * @param bytes or a function that writes them, for files too large to be held
 *
 * An existing file keeps its permissions, and a symbolic link keeps pointing at the file that is replaced.
 *
 * @throws UserError when the place cannot be written; what was there before is then still there, whole.
 */
export async function writeFileAtomic(path: string, bytes: Uint8Array | string | Fill): Promise<void> {
  try {
    await mkdir(dirname(resolve(path)), { recursive: true });
    const target = await realpath(path).catch(() => resolve(path));
    const temporary = temporaryName(target);
    try {
      await writeDurably(temporary, bytes);
      const old = await stat(target).catch(() => undefined);
      if (old !== undefined) await chmod(temporary, old.mode);
      await rename(temporary, target);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      throw error;
    }
    await syncFolder(dirname(target));
  } catch (error) {
    throw fileError(error, `write ${path}`);
  }
}

/**
 * Writes a folder of files as one: all of them, or on any fault none, and then what was there before is still there.
 *
 * A new folder appears by one rename. In an existing one the old files step aside before the new ones step in, so that
 * even a power cut between the renames never leaves new and old files mixed: at worst some are missing, and the old
 * ones lie in the hidden `.tmp` folder inside.
 *
 * @param files by plain name, without folders.
 * @param options overwrite: also write among files that are not being replaced; those are left alone.
 * @throws UserError when the place cannot be written, or holds other files and `overwrite` is not set.
 */
export async function writeFolderAtomic(
  folder: string,
  files: Readonly<Record<string, Uint8Array | string>>,
  options: { readonly overwrite?: boolean } = {},
): Promise<void> {
  const names = Object.keys(files);
  invariant(
    names.every((name) => name === basename(name) && name !== "" && name !== "." && name !== ".."),
    `writeFolderAtomic takes plain file names, not ${names.join(", ")}`,
  );
  try {
    const target = resolve(folder);
    await mkdir(dirname(target), { recursive: true });
    const present = await entries(target);
    const others = (present ?? []).filter((name) => !Object.hasOwn(files, name) && !isLeftover(name));
    if (others.length > 0 && options.overwrite !== true) {
      throw new UserError(
        `${folder} is not empty: it holds ${others.slice(0, 3).join(", ")}${others.length > 3 ? ` and ${others.length - 3} more` : ""}.`,
        "Choose another folder, or allow overwriting: files with other names are left alone.",
      );
    }
    // Inside an existing folder, because that may be a mount point or a link, and renames stay within a file system.
    const temporary = temporaryName(present === undefined ? target : join(target, "writing"));
    try {
      await mkdir(temporary);
      for (const name of names) await writeDurably(join(temporary, name), files[name]!);
      await syncFolder(temporary);
      if (present === undefined) await rename(temporary, target);
      else await replaceFiles(target, names, temporary);
    } catch (error) {
      await discard(temporary);
      throw error;
    }
    await syncFolder(present === undefined ? dirname(target) : target);
  } catch (error) {
    throw fileError(error, `write the folder ${folder}`);
  }
}

async function entries(folder: string): Promise<string[] | undefined> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** What a killed writer leaves behind must not make a folder count as foreign. */
function isLeftover(name: string): boolean {
  return /^\.writing\.[0-9a-f]{8}\.tmp$/.test(name);
}

/** Moves the old files out of the way, then the new ones in; undoes every step taken when one fails. */
async function replaceFiles(folder: string, names: readonly string[], temporary: string): Promise<void> {
  const moved: (readonly [from: string, to: string])[] = [];
  const move = async (from: string, to: string): Promise<void> => {
    await rename(from, to);
    moved.push([from, to]);
  };
  try {
    await mkdir(join(temporary, asideFolder));
    for (const name of names) {
      const old = await lstat(join(folder, name)).catch(() => undefined);
      if (old?.isDirectory()) {
        throw new UserError(`${join(folder, name)} is a folder where a file is to be.`, "Choose another place.");
      }
      if (old !== undefined) await move(join(folder, name), join(temporary, asideFolder, name));
    }
    for (const name of names) await move(join(temporary, name), join(folder, name));
  } catch (error) {
    let stuck = false;
    for (const [from, to] of moved.reverse()) await rename(to, from).catch(() => (stuck = true));
    if (!stuck) throw error;
    throw new UserError(
      `Cannot write the folder ${folder}, nor put its old files back: ${(error as Error).message}.`,
      `They lie in ${join(temporary, asideFolder)}: move them back by hand.`,
      { cause: error },
    );
  }
  // The new files are in place: whether the old ones can be removed no longer decides about success.
  await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
}

/** Removes a temporary folder, unless old files are stuck in it. */
async function discard(temporary: string): Promise<void> {
  const stuck = await readdir(join(temporary, asideFolder)).catch(() => []);
  if (stuck.length === 0) await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
}
