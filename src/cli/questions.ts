/** Prompts from flags, from a file's rows or from stdin, as questions; a short name for each, to show beside its answer. */

import { PROMPT_FIELDS, type Question } from "../data/schema.js";
import { UserError } from "../errors.js";
import type { Row } from "../files/rows.js";
import { readRows } from "../files/rows-node.js";
import type { ChatMessage } from "../tokens/template.js";

export interface QuestionSource {
  readonly prompt?: readonly string[] | undefined;
  readonly input?: string | undefined;
  readonly system?: string | undefined;
}

/** Prompts of `--prompt`, rows of `--input`, else the lines of stdin. */
export async function readQuestions({ prompt = [], input, system }: QuestionSource): Promise<Question[]> {
  const typed = prompt.map((text) => promptQuestion(text, system));
  const filed = input === undefined ? [] : (await readRows(input)).map((row) => rowQuestion(row, input, system));
  const questions = [...typed, ...filed];
  if (questions.length > 0) return questions;
  const lines = process.stdin.isTTY === true ? [] : await stdinLines();
  if (lines.length === 0)
    throw new UserError("there is no prompt.", 'Pass --prompt "…", --input FILE, or prompts on stdin, one a line.');
  return lines.map((line) => promptQuestion(line, system));
}

/** What is piped in, without empty lines. */
export async function stdinLines(): Promise<string[]> {
  let text = "";
  for await (const piece of process.stdin.setEncoding("utf8")) text += piece;
  return text.split(/\r?\n/).filter((line) => line.trim() !== "");
}

function promptQuestion(prompt: string, system: string | undefined): Question {
  if (system === undefined) return { kind: "prompt", prompt };
  return {
    kind: "chat",
    messages: [
      { role: "system", content: system },
      { role: "user", content: prompt },
    ],
  };
}

/** A row with or without an answer; the answer is not looked at. */
function rowQuestion({ line, value }: Row, path: string, system: string | undefined): Question {
  if (Array.isArray(value.messages)) return chatQuestion(value.messages, `${path}:${line}`);
  if (typeof value.instruction === "string") {
    const input = typeof value.input === "string" && value.input !== "" ? value.input : undefined;
    return { kind: "instruction", instruction: value.instruction, input };
  }
  const prompt = PROMPT_FIELDS.map(([name]) => value[name]).find((text) => typeof text === "string");
  if (prompt !== undefined) return promptQuestion(prompt, system);
  throw new UserError(
    `${path}:${line} has no prompt.`,
    'Rows are {"prompt": …} (or question, or input), {"messages": […]} or {"instruction": …}.',
  );
}

function chatQuestion(list: readonly unknown[], place: string): Question {
  const messages = list.map((message, i) => {
    if (isMessage(message)) return message;
    throw new UserError(`${place}: messages[${i}] is not {"role": text, "content": text}.`, "Correct that row.");
  });
  // The last answer is the one that is asked for.
  if (messages.at(-1)?.role === "assistant") messages.pop();
  if (messages.length === 0) throw new UserError(`${place}: there is no message to answer.`, "Correct that row.");
  return { kind: "chat", messages };
}

function isMessage(value: unknown): value is ChatMessage {
  const message = value as { role?: unknown; content?: unknown } | null;
  return typeof message === "object" && typeof message?.role === "string" && typeof message.content === "string";
}

/** What to call a question in a table. */
export function questionText(question: Question): string {
  if (question.kind === "prompt") return question.prompt;
  if (question.kind === "instruction")
    return question.input === undefined ? question.instruction : `${question.instruction} ${question.input}`;
  return question.messages.at(-1)?.content ?? "";
}
