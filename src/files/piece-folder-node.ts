/** Pieces of bytes by key on disk: in a folder that later runs read too, or in a temporary file that goes with the process. */

import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, readFile, rm, stat, statfs, unlink, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32 } from "node:zlib";

/** The pieces of one shelf. Nothing here throws: what cannot be kept is not kept, what cannot be trusted is not there. */
export interface Pieces {
  /** The bytes of a key, 32 hex digits; undefined where there are none of this length as they were written. */
  read(key: string, length: number): Promise<Uint8Array<ArrayBuffer> | undefined>;
  write(key: string, bytes: Uint8Array): Promise<void>;
}

export interface PieceFolder {
  /** Whether later runs find the pieces. */
  readonly persistent: boolean;
  /** @param name 32 hex digits; pieces of different names never meet, those of one name are one shelf */
  shelf(name: string): Promise<Pieces>;
  dispose(): Promise<void>;
}

/** The variable that names a folder for runs that name none. */
export const frozenFolderVariable = "REFT_FROZEN_CACHE";

/**
 * Opens a folder of pieces; without one, and where the environment names none, a temporary file takes them.
 *
 * @param limit bytes that all shelves may take together; shelves not in use make room, the longest unused first
 */
export function openPieceFolder(folder: string | undefined, limit: number): PieceFolder {
  const place = folder ?? (process.env[frozenFolderVariable] || undefined);
  const room = new Room(place, limit);
  const shelves = new Map<string, Promise<Shelf>>();
  const opened = async (name: string): Promise<Shelf> => {
    room.inUse.add(name);
    const shelf = new Shelf(place === undefined ? undefined : join(place, name), room);
    await shelf.load();
    return shelf;
  };
  return {
    persistent: place !== undefined,
    shelf: (name) => {
      const shelf = shelves.get(name) ?? opened(name);
      shelves.set(name, shelf);
      return shelf;
    },
    dispose: async () => {
      for (const shelf of shelves.values()) await (await shelf).dispose();
    },
  };
}

/** How much more may be written. */
class Room {
  /** Names of shelves that make no room. */
  readonly inUse: Set<string> = new Set();
  private readonly folder: string | undefined;
  private readonly limit: number;
  private left: number | undefined;
  /** Other shelves' segments, the one used last first. */
  private others: { readonly path: string; readonly shelf: string; readonly size: number }[] = [];
  private last: Promise<unknown> = Promise.resolve();

  constructor(folder: string | undefined, limit: number) {
    this.folder = folder;
    this.limit = limit;
  }

  /** One write after another. */
  queued<T>(act: () => Promise<T>): Promise<T> {
    const done = this.last.then(act);
    this.last = done.catch(() => undefined);
    return done;
  }

  async take(bytes: number): Promise<boolean> {
    this.left ??= await this.measure();
    while (bytes > this.left) {
      const oldest = this.others.pop();
      if (oldest === undefined) return false;
      if (this.inUse.has(oldest.shelf)) continue;
      if (await removed(oldest.path)) this.left += oldest.size;
    }
    this.left -= bytes;
    return true;
  }

  private async measure(): Promise<number> {
    const found: { path: string; shelf: string; size: number; at: number }[] = [];
    const names = this.folder === undefined ? [] : await readdir(this.folder).catch(() => []);
    for (const shelf of names.filter((name) => shelfName.test(name)))
      for (const path of await segmentsOf(join(this.folder as string, shelf))) {
        const { size, mtimeMs } = await stat(path + dataEnd).catch(() => ({ size: 0, mtimeMs: 0 }));
        found.push({ path, shelf, size, at: mtimeMs });
      }
    this.others = found.sort((a, b) => b.at - a.at);
    const used = found.reduce((sum, { size }) => sum + size, 0);
    if (this.folder !== undefined) await mkdir(this.folder, { recursive: true, mode: 0o700 }).catch(() => undefined);
    const disk = await statfs(this.folder ?? tmpdir()).catch(() => undefined);
    // Other programs need the disk too: never more than half of what is free.
    const free = disk === undefined ? Number.POSITIVE_INFINITY : (disk.bavail * disk.bsize) / 2;
    return Math.min(this.limit - used, free);
  }
}

/** A segment is two files that one process appends to: the pieces, and where they lie. */
const [dataEnd, indexEnd] = [".data", ".index"];
/** Key 16, offset 8, length 8, checksum of the piece 4, checksum of these 36 bytes 4. */
const entryBytes = 40;
/** Over a million and a half pieces, which fill any disk; more is not an index of ours. */
const maxIndexBytes = 64e6;

/** Only what has such names is ever removed: the folder may hold a user's own files. */
const shelfName = /^[0-9a-f]{32}$/;
const segmentName = /^([0-9a-z]{9,}-[0-9a-f]{8})\.(?:data|index)$/;

/** Paths of a folder's segments without their endings, in the order they were begun. */
async function segmentsOf(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  const found = new Set(names.flatMap((name) => segmentName.exec(name)?.[1] ?? []));
  return [...found].sort().map((name) => join(folder, name));
}

async function removed(path: string): Promise<boolean> {
  try {
    for (const end of [indexEnd, dataEnd]) await rm(path + end, { force: true });
    return true;
  } catch {
    return false;
  }
}

interface Place {
  readonly data: () => Promise<FileHandle>;
  readonly offset: number;
  readonly length: number;
  readonly sum: number;
}

interface Writer {
  readonly data: FileHandle;
  /** None for a temporary file. */
  readonly index: FileHandle | undefined;
  end: number;
  entries: number;
}

class Shelf implements Pieces {
  private readonly folder: string | undefined;
  private readonly room: Room;
  private readonly places = new Map<string, Place>();
  private readonly handles: Promise<FileHandle>[] = [];
  private writer: Promise<Writer | undefined> | undefined;
  private full = false;

  constructor(folder: string | undefined, room: Room) {
    this.folder = folder;
    this.room = room;
  }

  /** Reads the indexes of all segments; where a key is in several, the latest counts: it was made because another was bad. */
  async load(): Promise<void> {
    for (const path of this.folder === undefined ? [] : await segmentsOf(this.folder)) {
      const bytes = await indexOf(path + indexEnd);
      const size = (await stat(path + dataEnd).catch(() => undefined))?.size ?? 0;
      let opened: Promise<FileHandle> | undefined;
      const data = (): Promise<FileHandle> => (opened ??= this.opened(path + dataEnd));
      for (let at = 0; at + entryBytes <= bytes.length; at += entryBytes) {
        const entry = parseEntry(bytes.subarray(at, at + entryBytes));
        if (entry !== undefined && entry.offset + entry.length <= size)
          this.places.set(entry.key, { data, offset: entry.offset, length: entry.length, sum: entry.sum });
      }
    }
  }

  async read(key: string, length: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const place = this.places.get(key);
    if (place === undefined) return undefined;
    const bytes = place.length === length ? new Uint8Array(length) : undefined;
    const found =
      bytes !== undefined &&
      (await moved("read", () => place.data(), bytes, place.offset)) &&
      crc32(bytes) === place.sum;
    if (found) return bytes;
    this.places.delete(key);
    return undefined;
  }

  write(key: string, bytes: Uint8Array): Promise<void> {
    return this.room.queued(async () => {
      if (this.full || this.places.has(key)) return;
      const fits = await this.room.take(bytes.length + entryBytes);
      if (fits) this.writer ??= this.begin();
      const writer = fits ? await this.writer : undefined;
      if (writer !== undefined && (await this.append(writer, key, bytes))) return;
      // No later piece pays for another try.
      this.full = true;
      await writer?.data.truncate(writer.end).catch(() => undefined);
    });
  }

  private async append(writer: Writer, key: string, bytes: Uint8Array): Promise<boolean> {
    const { data, index, end: offset } = writer;
    const handle = (): Promise<FileHandle> => Promise.resolve(data);
    if (!(await moved("write", handle, bytes, offset))) return false;
    const [length, sum] = [bytes.length, crc32(bytes)];
    if (index !== undefined) {
      const entry = entryOf({ key, offset, length, sum });
      if (!(await moved("write", () => Promise.resolve(index), entry, writer.entries * entryBytes))) return false;
    }
    writer.end += length;
    writer.entries++;
    this.places.set(key, { data: handle, offset, length, sum });
    return true;
  }

  /** Opens a new segment; where the folder cannot be written, a temporary file; where that cannot be either, nothing. */
  private async begin(): Promise<Writer | undefined> {
    const writer = this.folder === undefined ? undefined : await beginSegment(this.folder).catch(() => undefined);
    const begun = writer ?? (await beginTemporary().catch(() => undefined));
    for (const handle of [begun?.data, begun?.index])
      if (handle !== undefined) this.handles.push(Promise.resolve(handle));
    return begun;
  }

  private opened(path: string): Promise<FileHandle> {
    const file = open(path, "r");
    this.handles.push(file);
    // Room is made by what was unused for longest.
    const now = new Date();
    void utimes(path, now, now).catch(() => undefined);
    return file;
  }

  async dispose(): Promise<void> {
    this.places.clear();
    this.full = true;
    for (const handle of this.handles) await handle.then((h) => h.close()).catch(() => undefined);
  }
}

async function indexOf(path: string): Promise<Uint8Array> {
  const size = (await stat(path).catch(() => undefined))?.size ?? 0;
  if (size === 0 || size > maxIndexBytes) return new Uint8Array();
  return readFile(path).catch(() => new Uint8Array());
}

async function beginSegment(folder: string): Promise<Writer> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // Backup programs leave out folders that hold this file (bford.info/cachedir): the shelf, not what the user named.
  const tag =
    "Signature: 8a477f597d28d172789f06886806bc55\n# Frozen work kept by reft. It can be deleted at any time.\n";
  const tagged = await open(join(folder, "CACHEDIR.TAG"), "wx", 0o600).catch(() => undefined);
  await tagged?.writeFile(tag);
  await tagged?.close();
  // Names in order of time; the random part keeps two processes apart.
  const path = join(folder, `${Date.now().toString(36).padStart(9, "0")}-${randomUUID().slice(0, 8)}`);
  const index = await open(path + indexEnd, "wx", 0o600);
  try {
    return { data: await open(path + dataEnd, "wx+", 0o600), index, end: 0, entries: 0 };
  } catch (error) {
    await index.close();
    throw error;
  }
}

async function beginTemporary(): Promise<Writer> {
  const path = join(tmpdir(), `reft-frozen-${process.pid}-${randomUUID().slice(0, 8)}.tmp`);
  const data = await open(path, "wx+", 0o600);
  // Unlinked at once: nothing is left behind, however the process ends. (Windows does it when the file is closed.)
  await unlink(path).catch(() => undefined);
  return { data, index: undefined, end: 0, entries: 0 };
}

interface Entry {
  readonly key: string;
  readonly offset: number;
  readonly length: number;
  readonly sum: number;
}

function entryOf({ key, offset, length, sum }: Entry): Uint8Array {
  const bytes = Buffer.alloc(entryBytes);
  bytes.write(key, "hex");
  bytes.writeBigUInt64LE(BigInt(offset), 16);
  bytes.writeBigUInt64LE(BigInt(length), 24);
  bytes.writeUInt32LE(sum, 32);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 36)), 36);
  return bytes;
}

/** Undefined where it is not as it was written: cut off, overwritten, or a hole. */
function parseEntry(entry: Uint8Array): Entry | undefined {
  const bytes = Buffer.from(entry.buffer, entry.byteOffset, entryBytes);
  if (crc32(bytes.subarray(0, 36)) !== bytes.readUInt32LE(36)) return undefined;
  return {
    key: bytes.toString("hex", 0, 16),
    offset: Number(bytes.readBigUInt64LE(16)),
    length: Number(bytes.readBigUInt64LE(24)),
    sum: bytes.readUInt32LE(32),
  };
}

/** Reads into an array, or writes it, whole; false where the file ends, the disk is full or the system reports a fault. */
async function moved(
  way: "read" | "write",
  handle: () => Promise<FileHandle>,
  bytes: Uint8Array,
  place: number,
): Promise<boolean> {
  try {
    const file = await handle();
    for (let done = 0; done < bytes.length; ) {
      const rest = bytes.length - done;
      const count =
        way === "read"
          ? (await file.read(bytes, done, rest, place + done)).bytesRead
          : (await file.write(bytes, done, rest, place + done)).bytesWritten;
      if (count === 0) return false;
      done += count;
    }
    return true;
  } catch {
    return false;
  }
}
