/** Long work as a person sees it: a bar where stderr is a terminal, a line now and then where it is not. */

import { Presets, SingleBar } from "cli-progress";
import type { ResolveOptions } from "../hub/resolve.js";
import type { TrainEvent } from "../train/events.js";
import { fileSize, grouped, number } from "./render.js";
import type { Terminal } from "./terminal.js";

function openBar(format: string, total: number, start: number, payload: object): SingleBar {
  const bar = new SingleBar({ format, stream: process.stderr, barsize: 24, etaBuffer: 20 }, Presets.shades_classic);
  bar.start(Math.max(1, total), start, payload);
  return bar;
}

export interface DownloadDisplay {
  readonly onProgress: NonNullable<ResolveOptions["onProgress"]>;
  /** Weights are coded, so many of so many. */
  onQuantise(done: number, total: number): void;
  stop(): void;
}

/** Shows downloads as one sum over all files, then the coding of weights. Nothing appears where nothing is done. */
export function showDownloads(terminal: Terminal, id: string): DownloadDisplay {
  const files = new Map<string, { readonly done: number; readonly total: number }>();
  const sum = (part: "done" | "total"): number => [...files.values()].reduce((n, file) => n + file[part], 0);
  let bar: SingleBar | undefined;
  let coding = false;
  return {
    onProgress: ({ file, done, total }) => {
      const isNew = !files.has(file);
      files.set(file, { done, total });
      if (!terminal.interactive) {
        if (isNew) terminal.note(`Downloading ${file} of ${id} (${fileSize(total)})`);
        return;
      }
      const payload = { file, have: fileSize(sum("done")), of: fileSize(sum("total")) };
      bar ??= openBar(`Downloading ${id} {bar} {have} of {of} | {file}`, sum("total"), 0, payload);
      bar.setTotal(Math.max(1, sum("total")));
      bar.update(sum("done"), payload);
    },
    onQuantise: (done, total) => {
      if (!terminal.interactive) {
        if (!coding) terminal.note(`Coding ${grouped(total)} weights of ${id}, once`);
        coding = true;
        return;
      }
      if (!coding) {
        bar?.stop();
        bar = openBar(`Coding ${id}, once {bar} {percentage} % | {eta_formatted} left`, total, 0, {});
        coding = true;
      }
      bar?.setTotal(total);
      bar?.update(done);
    },
    stop: () => bar?.stop(),
  };
}

export interface CountDisplay {
  /** So many are done. `note` is a figure to show beside them. */
  show(done: number, note?: string): void;
  stop(): void;
}

const counted = {
  answers: ["Answering", "answered"],
  measures: ["Measuring", "measured"],
  texts: ["Reading", "read"],
} as const;

/** Answers being written or examples being measured: a bar, or a line at every tenth of them. */
export function showCount(terminal: Terminal, what: keyof typeof counted, total: number, start = 0): CountDisplay {
  const [doing, did] = counted[what];
  const tenthsOf = (done: number): number => Math.floor((10 * done) / total);
  let tenths = tenthsOf(start);
  if (!terminal.interactive)
    return {
      show: (done, note = "") => {
        // What is done at once needs no report: the result is next.
        if (tenthsOf(done) <= tenths || (done === total && tenths === tenthsOf(start))) return;
        tenths = tenthsOf(done);
        terminal.note(`${did} ${done}/${total}${note}`);
      },
      stop: () => {},
    };
  const bar = openBar(`${doing} {bar} {value}/{total}{note} | {eta_formatted} left`, total, start, { note: "" });
  return { show: (done, note = "") => bar.update(done, { note }), stop: () => bar.stop() };
}

export interface TrainingDisplay {
  show(event: TrainEvent): void;
  /** Takes the bar away, whatever happened. */
  stop(): void;
}

/** Training on stderr: loss, tokens a second and the time left. */
export function showTraining(terminal: Terminal): TrainingDisplay {
  return terminal.interactive ? new TrainingBar(terminal) : new TrainingLines(terminal);
}

const barFormat = "Training {bar} {value}/{total} | loss {loss} | {speed} tokens/s | {eta_formatted} left";

class TrainingBar implements TrainingDisplay {
  private readonly terminal: Terminal;
  private bar: SingleBar | undefined;
  private loss = "–";
  private tokens = 0;
  private seconds = 0;
  private total = 0;
  private step = 0;

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  show(event: TrainEvent): void {
    if (event.type === "start") {
      this.total = event.totalSteps;
      this.step = event.step;
      this.open();
    } else if (event.type === "step") {
      this.step = event.step;
      this.loss = number(event.loss);
      this.tokens += event.tokens;
      this.seconds += event.seconds;
      this.open();
      this.bar?.update(event.step, this.payload());
    } else if (event.type === "evaluate" || event.type === "checkpoint") {
      // A line of its own; the next step draws the bar anew, under it.
      this.stop();
      this.terminal.note(describe(event));
    } else if (event.type === "end") this.stop();
  }

  stop(): void {
    this.bar?.stop();
    this.bar = undefined;
  }

  private open(): void {
    this.bar ??= openBar(barFormat, this.total, this.step, this.payload());
  }

  private payload(): object {
    const speed = this.seconds > 0 ? Math.round(this.tokens / this.seconds).toLocaleString("en-US") : "–";
    return { loss: this.loss, speed };
  }
}

class TrainingLines implements TrainingDisplay {
  private readonly terminal: Terminal;
  private total = 0;

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  show(event: TrainEvent): void {
    if (event.type === "start") this.total = event.totalSteps;
    if (event.type === "log")
      this.terminal.note(
        `step ${event.step}/${this.total} | loss ${number(event.loss)} | ${Math.round(event.tokensPerSecond).toLocaleString("en-US")} tokens/s`,
      );
    if (event.type === "evaluate" || event.type === "checkpoint") this.terminal.note(describe(event));
  }

  stop(): void {
    // Lines leave nothing behind.
  }
}

function describe(event: Extract<TrainEvent, { type: "evaluate" | "checkpoint" }>): string {
  if (event.type === "checkpoint") return `step ${event.step} | checkpoint ${event.folder}`;
  const best = event.best ? " (best)" : "";
  const { perplexity, figures } = event;
  const measures = { ...(perplexity === undefined ? {} : { perplexity }), ...figures };
  const told = Object.entries(measures).map(([name, value]) => `, ${name} ${number(value)}`);
  return `step ${event.step} | evaluation loss ${number(event.loss)}${told.join("")}${best}`;
}
