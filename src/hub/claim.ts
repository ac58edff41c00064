/** Who writes which half-downloaded file: at any time each one has a single owner, known from its name. */
import { createHash, randomUUID } from "node:crypto";
import { open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errorCode } from "../files/write-node.js";

/*
 * A download goes into <blob>.reft-<host>-<pid>-<random>.incomplete, which no other process writes to. Put down, it is
 * called <blob>.reft.incomplete. Taking one over is a rename, and of several who try, the file system lets one win.
 * A file is up for taking when put down, when its process is dead, or when nothing has been written for long (a process
 * on another machine may be dead without our seeing it). Names differ from Python's, whose files we never touch.
 */
const longIdle = 5 * 60_000;
const host = createHash("sha256").update(hostname()).digest("hex").slice(0, 8);

interface Part {
  readonly path: string;
  readonly size: number;
  readonly free: boolean;
}

/**
 * Gets a half-downloaded file of our own: one left by an earlier run, or a new empty one. While another process
 * downloads the same blob, waits for it.
 *
 * @param isDone whether the blob is there; asked before each look.
 * @returns the file's path, or undefined when the blob has meanwhile arrived.
 */
export async function claimPart(
  blob: string,
  isDone: () => Promise<boolean>,
  poll: number,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const own = `${blob}.reft-${host}-${process.pid}-${randomUUID().slice(0, 8)}.incomplete`;
  for (;;) {
    signal?.throwIfAborted();
    if (await isDone()) return undefined;
    const parts = await listParts(blob);
    const [best, ...others] = parts.filter(({ free }) => free).sort((a, b) => b.size - a.size);
    if (parts.some(({ free }) => !free)) {
      await sleep(poll);
    } else if (best === undefined) {
      if (await claimNew(blob, own)) {
        // Another's file may have become the blob between the two looks.
        if (!(await isDone())) return own;
        await rm(own, { force: true });
        return undefined;
      }
      // By chance, so that two who gave way to each other do not meet again.
      await sleep(poll * (0.5 + Math.random()));
    } else if (await take(best.path, own)) {
      for (const { path } of others) await rm(path, { force: true });
      return own;
    }
  }
}

/**
 * Makes an empty file of ours, and looks only then who else has one: of two who begin at once, the later one always sees the
 * other's. Who sees one gives way.
 */
async function claimNew(blob: string, own: string): Promise<boolean> {
  await (await open(own, "wx")).close();
  const alone = (await listParts(blob)).every(({ path, free }) => free || path === own);
  if (!alone) await rm(own, { force: true });
  return alone;
}

/** Puts a file down for the next run to take up; an empty one is removed. */
export async function releasePart(blob: string, own: string): Promise<void> {
  const size = await stat(own).then(
    (found) => found.size,
    () => 0,
  );
  if (size > 0) await rename(own, `${blob}.reft.incomplete`);
  else await rm(own, { force: true });
}

async function listParts(blob: string): Promise<Part[]> {
  const prefix = `${basename(blob)}.reft`;
  const parts: Part[] = [];
  for (const name of await readdir(dirname(blob))) {
    const match = name.startsWith(prefix) && /^(?:-(\w+)-(\d+)-\w+)?\.incomplete$/.exec(name.slice(prefix.length));
    if (!match) continue;
    const path = join(dirname(blob), name);
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) continue;
    const [, owner, pid] = match;
    const idle = Date.now() - found.mtimeMs > longIdle;
    const free = pid === undefined || idle || (owner === host && !isAlive(Number(pid)));
    parts.push({ path, size: found.size, free });
  }
  return parts;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === "EPERM"; // somebody else's process
  }
}

/** Makes a free file ours; false if another process was faster. */
async function take(path: string, own: string): Promise<boolean> {
  try {
    // First: under its new name the file must not look idle even for a moment.
    await utimes(path, new Date(), new Date());
    await rename(path, own);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
