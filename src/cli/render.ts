/** Numbers, sizes and answers as text for a person. */

import type { Terminal } from "./terminal.js";

/** Bytes in decimal units, as disks and downloads are sold: 2,084 → "2.1 kB". */
export function fileSize(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let value = bytes;
  while (value >= 1000 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${units[0] === "B" || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[0]}`;
}

/** A loss or perplexity: three figures are what a person compares. */
export function number(value: number): string {
  if (!Number.isFinite(value) || value === 0) return String(value);
  const size = Math.abs(value);
  if (size < 0.001 || size >= 1e6) return value.toExponential(2);
  return size >= 1000 ? grouped(Math.round(value)) : value.toPrecision(3);
}

/** Measures by name: "loss 0.693, reward chosen 1.25". */
export function figureText(figures: Readonly<Record<string, number>>): string {
  const words = (name: string): string => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return Object.entries(figures)
    .map(([name, value]) => `${words(name)} ${number(value)}`)
    .join(", ");
}

export function grouped(value: number): string {
  return value.toLocaleString("en-US");
}

/** "1 example", "2 examples" */
export function count(n: number, noun: string): string {
  return `${grouped(n)} ${noun}${n === 1 ? "" : "s"}`;
}

export interface Comparison {
  readonly prompt: string;
  readonly base: string;
  readonly edited: string;
}

/** Base and edited answers side by side where they fit, else under each other. */
export function comparisonLines(terminal: Terminal, rows: readonly Comparison[]): string[] {
  const width = (texts: readonly string[]): number => Math.max(...texts.map((text) => text.length));
  const first = width(["Prompt", ...rows.map((row) => row.prompt)]);
  const second = width(["Base model", ...rows.map((row) => row.base)]);
  const third = width(rows.map((row) => row.edited));
  const flat = rows.every((row) => !`${row.prompt}${row.base}${row.edited}`.includes("\n"));
  if (!flat || first + second + third + 4 > terminal.columns) return rows.flatMap((row) => stacked(terminal, row));
  const line = (a: string, b: string, c: string): string => `${a.padEnd(first)}  ${b.padEnd(second)}  ${c}`;
  const head = terminal.dim(line("Prompt", "Base model", "With the edit"));
  return [head, ...rows.map((row) => line(row.prompt, row.base, row.edited))];
}

function stacked(terminal: Terminal, { prompt, base, edited }: Comparison): string[] {
  return [terminal.bold(prompt), `  ${terminal.dim("base  ")} ${base}`, `  ${terminal.dim("edited")} ${edited}`, ""];
}

/** Words as a POSIX shell reads them back. */
export function shellLine(words: readonly string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}
