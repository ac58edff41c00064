/** Rows of a prompt and two answers, in the model's own template: what DPO and reward models learn from. */

import { UserError } from "../errors.js";
import type { Row } from "../files/rows.js";
import type { ChatMessage } from "../tokens/template.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { type Dataset, gatherExamples } from "./dataset.js";
import { type EncodeOptions, encodeLesson } from "./encode.js";
import type { Example } from "./example.js";
import { answerField, textField } from "./field.js";
import { chooseTemplate, formatLesson, type PromptTemplate } from "./format.js";
import { longerOf, type PreferenceExample } from "./preference.js";
import { type Lesson, messagesField } from "./schema.js";

export interface PreferenceDatasetOptions extends EncodeOptions {
  /** "chat", "none", "alpaca" or a text with {prompt}; see `chooseTemplate` for the default. */
  readonly template?: PromptTemplate;
}

const SHAPES =
  'Rows are {"prompt", "chosen", "rejected"}: texts, or conversations (lists of messages), the prompt apart or in both of them.';

/**
 * The pairs of rows {prompt, chosen, rejected} of texts, or of conversations that end with the answer: whole ones (a prompt
 * beside them says nothing new), or a prompt of messages and what each goes on with, as in TRL.
 *
 * @throws UserError with file and line where a field is missing or empty, or chosen and rejected are the same
 */
export function makePreferenceDataset(
  rows: readonly Row[],
  fileName: string,
  tokenizer: Tokenizer,
  options: PreferenceDatasetOptions,
): Dataset<PreferenceExample> {
  const [first] = rows;
  if (first === undefined) throw new UserError(`${fileName} holds no rows.`, "Give at least one pair.");
  const template = chooseTemplate(options.template, tokenizer, pairKind(first));
  const encode = (row: Row): PreferenceExample => {
    const one = (field: "chosen" | "rejected"): Example => {
      const text = formatLesson(lessonOf(row, field, fileName), template, tokenizer, options);
      return encodeLesson(text, tokenizer, options);
    };
    const pair = { chosen: one("chosen"), rejected: one("rejected") };
    if (pair.chosen.inputIds.join() !== pair.rejected.inputIds.join()) return pair;
    throw new UserError(
      `${fileName}:${row.line}: "chosen" and "rejected" are the same, so there is nothing to prefer.`,
      "Take the row out, or correct one of the two.",
    );
  };
  return gatherExamples(rows, encode, { fileName, maxLength: options.maxLength, tokensOf: longerOf });
}

/** Whether a row's answers are conversations or plain texts. */
export function pairKind({ value }: Row): "chat" | "prompt" {
  return Array.isArray(value.chosen) ? "chat" : "prompt";
}

function lessonOf(row: Row, field: "chosen" | "rejected", fileName: string): Lesson {
  const { line } = row;
  if (pairKind(row) === "prompt") {
    const prompt = textField(row, "prompt", fileName, SHAPES);
    const answer: ChatMessage = { role: "assistant", content: answerField(row, field, fileName, SHAPES) };
    return { line, question: { kind: "prompt", prompt }, answer };
  }
  const messages = messagesField(wholeConversation(row, field), field, fileName);
  const answer = messages.at(-1) as ChatMessage;
  if (answer.content.trim() === "")
    throw new UserError(
      `${fileName}:${line}: the answer that "${field}" ends with is empty.`,
      "Fill it in, or take the row out.",
    );
  return { line, question: { kind: "chat", messages: messages.slice(0, -1) }, answer };
}

/** With the prompt's messages before the answer's, where they stand apart. */
function wholeConversation({ line, value }: Row, field: string): Row {
  const { prompt, [field]: answer } = value;
  return Array.isArray(prompt) && Array.isArray(answer)
    ? { line, value: { ...value, [field]: [...prompt, ...answer] } }
    : { line, value };
}
