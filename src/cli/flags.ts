/** From one schema to command-line flags and back: every flag, run-file name and help line is read off a zod object. */

import { type Command, Option } from "commander";
import { z } from "zod";
import { UserError } from "../errors.js";

/** One option of a command under its camelCase name. */
export interface Flag {
  readonly name: string;
  /** "switch": may stand alone or take a text. */
  readonly type: "text" | "number" | "boolean" | "list" | "switch";
  readonly description: string;
  readonly default: unknown;
  readonly choices: readonly string[] | undefined;
  /** The heading it stands under in --help. */
  readonly group: string;
  /** A second, shorter name: the one that --help shows. */
  readonly alias?: string;
  /** What --help calls the value. */
  readonly placeholder?: string;
}

/** What a command line or a run file gives, before the schema has seen it. */
export type RawOptions = Readonly<Record<string, unknown>>;

interface JsonProperty {
  readonly type?: string | readonly string[];
  readonly default?: unknown;
  readonly description?: string;
  readonly enum?: readonly string[];
  readonly items?: { readonly enum?: readonly string[] };
  /** From zod's meta(). */
  readonly placeholder?: string;
}

/** The flags of a schema, in its order. */
export function flagsOf(schema: z.ZodObject, group: string, aliases: Readonly<Record<string, string>> = {}): Flag[] {
  const { properties = {} } = z.toJSONSchema(schema, { io: "input" });
  return Object.entries(properties as Record<string, JsonProperty>).map(([name, p]) => ({
    name,
    type: typeOf(p),
    description: p.description ?? "",
    default: p.default,
    choices: p.enum ?? p.items?.enum,
    group,
    ...given({ placeholder: p.placeholder, alias: aliases[name] }),
  }));
}

function typeOf({ type }: JsonProperty): Flag["type"] {
  if (Array.isArray(type) && type.includes("boolean")) return "switch";
  if (type === "integer" || type === "number") return "number";
  if (type === "array") return "list";
  return type === "boolean" ? "boolean" : "text";
}

/** learningRate → learning-rate, loadIn4bit → load-in-4bit */
export function kebab(name: string): string {
  return name.replace(/\d+(?=[a-z])/g, "-$&").replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Adds flags to a command. Defaults stay with the schema, so that what was not given can come from elsewhere. */
export function addFlags(command: Command, flags: readonly Flag[]): void {
  for (const flag of flags) {
    command.addOption(optionOf(flag, flag.alias ?? flag.name).helpGroup(flag.group));
    if (flag.alias !== undefined) command.addOption(optionOf(flag, flag.name).hideHelp());
    // Turns off what a run file has turned on.
    if (flag.type === "boolean") command.addOption(new Option(`--no-${kebab(flag.name)}`).hideHelp());
  }
}

function optionOf(flag: Flag, name: string): Option {
  const option = new Option(`--${kebab(name)}${valueText(flag)}`, helpOf(flag));
  // The library takes every "--no-…" for the opposite of another flag; --no-repeat-ngram-size is its own.
  option.negate = false;
  if (flag.type === "number") option.argParser((text) => numberFrom(text, `--${kebab(name)}`));
  if (flag.type === "list")
    option.argParser((text, before: string[] | undefined) => [...(before ?? []), ...items(text, flag)]);
  if (flag.type === "text" && flag.choices !== undefined) option.choices(flag.choices);
  return option;
}

function valueText({ type, choices, placeholder }: Flag): string {
  if (type === "boolean") return "";
  const what = placeholder ?? (choices !== undefined ? "choice" : type === "number" ? "number" : "text");
  return type === "switch" ? ` [${what}]` : ` <${what}>`;
}

function helpOf({ description, default: value, type, choices, alias, name }: Flag): string {
  const repeatable = type === "list" && choices === undefined ? "; may be given several times" : "";
  const also = alias === undefined ? "" : ` (also: --${kebab(name)})`;
  const shown = value === undefined || value === false ? "" : ` (default: ${[value].flat().join(", ")})`;
  return `${description}${repeatable}${also}${shown}`;
}

/**
 * Options under their own names, whichever of their names they were given by.
 *
 * @param place who gave them, for messages: a file, say
 * @throws UserError for a name that no flag has, and for an option given by two names
 */
export function withOwnNames(options: RawOptions, flags: readonly Flag[], place: string): RawOptions {
  const names = new Map<string, string>();
  for (const { name, alias = name } of flags)
    for (const known of [name, alias, kebab(name), kebab(alias)]) names.set(known, name);
  const renamed: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(options)) {
    const name = names.get(key);
    if (name === undefined)
      throw new UserError(
        `${place}: there is no option "${key}".`,
        `Known are ${flags.map((f) => f.alias ?? f.name).join(", ")}.`,
      );
    if (Object.hasOwn(renamed, name))
      throw new UserError(`${place}: ${name} is given twice.`, `"${key}" is one of its names; give it once.`);
    renamed[name] = value;
  }
  return renamed;
}

function numberFrom(text: string, name: string): number {
  const value = Number(text);
  if (text.trim() !== "" && Number.isFinite(value)) return value;
  throw new UserError(`${name} is ${JSON.stringify(text)}, which is no number.`, "Write 8, 0.9 or 4e-3, say.");
}

/** A list of free texts takes one at a time, since they may hold commas; a choice takes several. */
function items(text: string, { choices }: Flag): string[] {
  return choices === undefined ? [text] : text.split(",").map((item) => item.trim());
}

/**
 * Checks options by a schema and fills in its defaults.
 *
 * @throws UserError that names the option, what it is and what it means
 */
export function parseOptions<S extends z.ZodObject>(schema: S, raw: RawOptions): z.infer<S> {
  const parsed = schema.safeParse(raw);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  if (issue?.code === "unrecognized_keys")
    throw new UserError(`there is no option "${issue.keys[0]}".`, `Known are ${Object.keys(schema.shape).join(", ")}.`);
  const name = String(issue?.path[0]);
  const meaning = (schema.shape[name] as z.ZodType | undefined)?.description ?? "";
  const said = raw[name] === undefined ? "missing" : `${JSON.stringify(raw[name])}: ${issue?.message}`;
  throw new UserError(`${name} is ${said}.`, `--${kebab(name)}: ${meaning}.`);
}

/** Options that were given, without those that are undefined. */
export type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Leaves out what is undefined, for functions that tell "not given" from "undefined". */
export function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>;
}
