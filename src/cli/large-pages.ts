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

/** Whether beginning again gives a command large pages: where the system waits to be asked, and this Node can. */
export function beginningAgainHelps(): boolean {
  return "execve" in process && largePagesOnRequest();
}

/**
 * The environment to begin again with, or undefined where that would change nothing: where the command runs no model, where
 * tunables are set already (empty counts: `GLIBC_TUNABLES= reft train …` switches this off), and where `helps` says no.
 */
export function environmentFor(
  argv: readonly string[],
  env: NodeJS.ProcessEnv,
  helps: () => boolean = beginningAgainHelps,
): NodeJS.ProcessEnv | undefined {
  const wanted = running.has(argv[0]) && env.GLIBC_TUNABLES === undefined && helps();
  return wanted ? { ...env, ...largePages } : undefined;
}

/** Begins the same command again with large pages, as the same process, where that helps. */
export function beginWithLargePages(argv: readonly string[]): void {
  // A program that talks to its parent would lose the line.
  if (process.channel !== undefined) return;
  const env = environmentFor(argv, process.env);
  if (env === undefined) return;
  const { execve } = process as { execve?: Execve };
  execve?.(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], env);
}
