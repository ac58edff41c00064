/** One training run as a command sees it: the trainer's events rendered, Ctrl-C heard. */

import type { TrainEvent } from "../train/events.js";
import type { Measured } from "../train/objective.js";
import type { ReftTrainer, TrainEnd } from "../train/trainer.js";
import { showTraining } from "./progress.js";
import type { Terminal } from "./terminal.js";

export interface RunSettings {
  readonly terminal: Terminal;
  readonly json: boolean;
  readonly signal?: AbortSignal;
  readonly resume?: string | boolean;
}

/** Trains to the end, or until the signal; events go to stderr as a bar, or to stdout as JSON lines. */
export async function runTraining<Item, E extends Measured>(
  trainer: Pick<ReftTrainer<Item, E>, "run">,
  settings: RunSettings,
): Promise<TrainEnd> {
  const { terminal, json, signal, resume = false } = settings;
  const display = json ? undefined : showTraining(terminal);
  const show = (event: TrainEvent): void => (json ? terminal.result(JSON.stringify(event)) : display?.show(event));
  const events = trainer.run({
    ...(signal === undefined ? {} : { signal }),
    ...(resume === false ? {} : { resumeFromCheckpoint: resume }),
  });
  try {
    for (;;) {
      const { done, value } = await events.next();
      if (done === true) return value;
      show(value);
    }
  } finally {
    display?.stop();
  }
}
