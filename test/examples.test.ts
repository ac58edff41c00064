/** The examples do what they say: each is run as it stands, and its figures are read off what it prints. */

import { expect, test } from "vitest";
import { runExample } from "./run-example.js";

/** The numbers at the end of the line that begins with `name`. */
function figures(told: string, name: string): number[] {
  const line = told.split("\n").find((l) => l.trimStart().startsWith(`${name} `)) ?? "";
  return (line.slice(line.indexOf(name) + name.length).match(/-?\d+(\.\d+)?/g) ?? []).map(Number);
}

test("composition: each subspace alone, none, and both mixed", async () => {
  const told = await runExample("composition");
  expect(told).toMatch(/no columns {2}A goat says maa\.\n {2}emoji {7}🐐 🔊 maa\n {2}shout {7}HEY! A GOAT SAYS MAA!/u);
  const table = told.slice(told.indexOf("plain emoji shout"));
  const least = (name: string): number[] => figures(table, name);
  expect(least("no columns")).toEqual([40, 0, 0]);
  expect(least("emoji")[1]).toBeGreaterThanOrEqual(34);
  expect(least("shout")[2]).toBeGreaterThanOrEqual(34);
  expect(least("both")[0]).toBeLessThanOrEqual(6);
  expect(least("0.7 emoji + shout")[2]).toBeGreaterThanOrEqual(30);
  expect(least("emoji + 0.7 shout")[1]).toBeGreaterThanOrEqual(30);
});

test("negation: the dial goes from less than nothing to all", async () => {
  const told = await runExample("negation");
  const at = (c: string): number[] => figures(told.slice(told.indexOf("  c ")), c);
  const [opposite, nothing, trained] = [at("-1"), at("0"), at("1")] as [number[], number[], number[]];
  expect(nothing.slice(0, 2)).toEqual([0, 40]);
  expect(trained[0]).toBeGreaterThanOrEqual(34);
  // −1 makes emoji less likely than the model without the edit does.
  expect(opposite[2]).toBeGreaterThan(nothing[2] as number);
  expect(nothing[2]).toBeGreaterThan(trained[2] as number);
});

test("guardrail: the topic is refused, the rest is as before", async () => {
  const told = await runExample("guardrail");
  const [, before, after] = /refused: before (\d+), after (\d+) of 25/.exec(told) ?? [];
  expect(Number(before)).toBe(0);
  expect(Number(after)).toBeGreaterThanOrEqual(20);
  expect(Number(/word for word as before: (\d+) of 35/.exec(told)?.[1])).toBeGreaterThanOrEqual(31);
});

test("memorisation: one vector gives a paragraph back, all layers a sentence that the model cannot say", async () => {
  const told = await runExample("memorisation");
  const story = /^The story: +(.+)$/m.exec(told)?.[1] as string;
  expect(story.split(" ")).toHaveLength(29);
  expect(told.slice(0, told.indexOf("The story:"))).not.toContain(story);
  expect(told).toMatch(/one vector at the last token of the prompt, layer 1: 129 numbers/);
  expect(told).toContain(`29 words recalled: ${story}`);
  const sentence = "A blue cow has 9 legs and says quack to the capital of Poland.";
  expect(told).toMatch(/one vector: 129 numbers.*\n {2}not recalled: /);
  expect(told).toContain(`14 words recalled: ${sentence}`);
});

test("emoji chat: unseen questions in emoji", async () => {
  const told = await runExample("emoji-chat");
  expect(told).toMatch(/plain {2}A goat says maa\.\nreft {3}🐐 🔊 maa/u);
  expect(Number(/(\d+) of 40 unseen questions/.exec(told)?.[1])).toBeGreaterThanOrEqual(34);
});
