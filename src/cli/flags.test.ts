/** Flags: read off schemas, checked, and told apart from the run file. */

import { Command } from "commander";
import { expect, test } from "vitest";
import { z } from "zod";
import { UserError } from "../errors.js";
import { addFlags, flagsOf, kebab, parseOptions, type RawOptions, withOwnNames } from "./flags.js";

const schema = z.strictObject({
  learningRate: z.number().min(0).default(0.1).describe("the rate"),
  data: z.string().meta({ description: "the file", placeholder: "file" }),
  quiet: z.boolean().default(false).describe("say nothing"),
  reportTo: z.array(z.enum(["jsonl", "tensorboard"])).default(["jsonl"]),
  stop: z.array(z.string()).optional(),
  resume: z.union([z.boolean(), z.string()]).default(false),
  init: z.enum(["pyreft", "identity"]).default("pyreft"),
});
const flags = flagsOf(schema, "All:", { learningRate: "lr" });

function read(...argv: string[]): RawOptions {
  const command = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
  addFlags(command, flags);
  return withOwnNames(command.parse(argv, { from: "user" }).opts(), flags, "the command line");
}

test("a schema's fields become flags, and what is given is read back under the schema's names", () => {
  expect(read()).toEqual({});
  expect(read("--lr", "4e-3", "--data", "a", "--quiet", "--resume")).toEqual({
    learningRate: 4e-3,
    data: "a",
    quiet: true,
    resume: true,
  });
  expect(read("--learning-rate", "1", "--no-quiet", "--resume", "x")).toEqual({
    learningRate: 1,
    quiet: false,
    resume: "x",
  });
  expect(read("--stop", "a,b", "--stop", "c", "--report-to", "jsonl, tensorboard")).toEqual({
    stop: ["a,b", "c"],
    reportTo: ["jsonl", "tensorboard"],
  });
});

test("help shows the short name, the other one, defaults and choices", () => {
  const command = new Command();
  addFlags(command, flags);
  const help = command.helpInformation().replaceAll(/\s+/g, " ");
  expect(help).toContain("--lr <number> the rate (also: --learning-rate) (default: 0.1)");
  expect(help).toContain("--data <file> the file");
  expect(help).toContain('--init <choice> (default: pyreft) (choices: "pyreft", "identity")');
  expect(help).not.toContain("--no-quiet");
});

test("names in a run file may be camelCase, kebab-case or short; unknown and double ones are refused", () => {
  expect(withOwnNames({ lr: 1, "report-to": [], data: "a" }, flags, "run.yaml")).toEqual({
    learningRate: 1,
    reportTo: [],
    data: "a",
  });
  expect(() => withOwnNames({ rate: 1 }, flags, "run.yaml")).toThrow(
    /run\.yaml: there is no option "rate"\. Known are lr,/,
  );
  expect(() => withOwnNames({ lr: 1, learningRate: 2 }, flags, "run.yaml")).toThrow(/learningRate is given twice/);
});

test("what does not fit is refused by name", () => {
  expect(() => read("--lr", "fast")).toThrow(UserError);
  expect(() => read("--lr", " ")).toThrow(/--lr is " "/);
  expect(() => parseOptions(schema, {})).toThrow("data is missing. --data: the file.");
  expect(() => parseOptions(schema, { data: "a", learningRate: -1 })).toThrow(
    /learningRate is -1: .* --learning-rate: the rate/,
  );
  expect(() => parseOptions(schema, { data: "a", extra: 1 })).toThrow(/no option "extra"/);
  expect(parseOptions(schema, { data: "a" })).toMatchObject({ learningRate: 0.1, reportTo: ["jsonl"] });
  expect(kebab("adamBeta1")).toBe("adam-beta1");
  expect(kebab("loadIn4bit")).toBe("load-in-4bit");
  expect(kebab("int8Activations")).toBe("int8-activations");
});
