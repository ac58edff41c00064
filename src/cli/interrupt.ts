/** Ctrl-C: the first one asks the work to stop in order, the second one ends the process at once. */

import { constants } from "node:os";

export interface Interrupt {
  readonly signal: AbortSignal;
  /** What a shell expects of a process that was interrupted: 128 + the signal's number. */
  readonly exitCode: number;
  /** Gives Ctrl-C its usual meaning back. */
  release(): void;
}

const signals = ["SIGINT", "SIGTERM"] as const;

/** Listens for Ctrl-C (and a polite kill); `first` is called once, to say that the work is stopping. */
export function listenForInterrupt(first: () => void): Interrupt {
  const controller = new AbortController();
  let exitCode = 128 + constants.signals.SIGINT;
  const stop = (name: (typeof signals)[number]): void => {
    exitCode = 128 + constants.signals[name];
    if (controller.signal.aborted) process.exit(exitCode);
    first();
    controller.abort();
  };
  for (const name of signals) process.on(name, stop);
  return {
    signal: controller.signal,
    get exitCode() {
      return exitCode;
    },
    release: () => {
      for (const name of signals) process.off(name, stop);
    },
  };
}

/** What the work gives; undefined where it threw because of the signal. */
export async function unlessAborted<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    return undefined;
  }
}
