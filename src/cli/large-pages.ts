/** Large pages for what the runtime allocates: asked for as a program starts, where the system gives them on request. */

// A model's weights and a step's values are gigabytes: in pages of 4 kB their first touch takes seconds, and every step misses the
// processor's address cache. Many Linux systems give pages of 2 MB only to a program that asks for them; glibc's malloc asks where
// a tunable says so, and it reads its tunables only as a program starts.

import { readFileSync } from "node:fs";

/** What has glibc ask for large pages (2.35 and later; others take no notice). */
export const largePages = { GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" } as const;

/** The commands that run a model. */
const running: ReadonlySet<string | undefined> = new Set(["demo", "train", "generate", "chat", "classify", "eval"]);

/** `process.execve`, which Node has since 22.15, and not on Windows. */
type Execve = (file: string, args: readonly string[], env: NodeJS.ProcessEnv) => never;

/** Whether the system gives large pages to those who ask, and only to them. */
export function largePagesOnRequest(file = "/sys/kernel/mm/transparent_hugepage/enabled"): boolean {
  try {
    return readFileSync(file, "utf8").includes("[madvise]");
  } catch {
    return false;
  }
}

/**
 * The environment to begin again with, or undefined where that would change nothing: where the command runs no model, where
 * tunables are set already (empty counts: `GLIBC_TUNABLES= reft train …` switches this off), and where pages need no asking.
 */
export function environmentFor(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  onRequest: () => boolean = largePagesOnRequest,
): NodeJS.ProcessEnv | undefined {
  const wanted = running.has(argv[0]) && env.GLIBC_TUNABLES === undefined && onRequest();
  return wanted ? { ...env, ...largePages } : undefined;
}

/** Begins the same command again with large pages, as the same process, where the system and this Node allow it. */
export function beginWithLargePages(argv: readonly string[]): void {
  const { execve } = process as { execve?: Execve };
  if (execve === undefined || process.channel !== undefined) return;
  const env = environmentFor(argv, process.env);
  if (env === undefined) return;
  execve(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], env);
}
