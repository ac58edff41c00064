/** Whose setting counts: the user's, then generation_config.json's, then transformers' defaults. */

import { expect, test } from "vitest";
import type { CausalLM } from "../models/causal-lm.js";
import { type GenerateOptions, type Settings, settingsFor } from "./options.js";

function settings(options: GenerateOptions, generationConfig: object = {}, config: object = {}): Settings {
  const checkpoint = { folder: "m", config, generationConfig, weights: new Map() };
  const model = { id: "m", checkpoint, config: { rope: {}, vocabSize: 10, maxPositionEmbeddings: 8 } };
  return settingsFor(model as unknown as CausalLM, options, 5);
}

test("nothing said: greedy, no limits, 256 tokens", () => {
  const { sampling, maxNewTokens, eosTokenIds } = settings({});
  expect(sampling).toEqual({
    doSample: false,
    temperature: 1,
    topK: 50,
    topP: 1,
    minP: 0,
    typicalP: 1,
    repetitionPenalty: 1,
  });
  expect(maxNewTokens).toBe(256);
  expect([...eosTokenIds]).toEqual([]);
});

const stored = {
  do_sample: true,
  temperature: 0.6,
  top_k: 20,
  top_p: 0.95,
  min_p: null,
  repetition_penalty: 1.1,
  max_new_tokens: 9,
  eos_token_id: [7, 8],
};

test("generation_config.json, and options that win over it", () => {
  const own = settings({}, stored);
  expect(own.sampling).toMatchObject({
    doSample: true,
    temperature: 0.6,
    topK: 20,
    topP: 0.95,
    repetitionPenalty: 1.1,
  });
  expect([own.maxNewTokens, ...own.eosTokenIds]).toEqual([9, 7, 8]);
  const said = settings({ doSample: false, topK: 0, maxNewTokens: 3, eosTokenIds: [], repetitionPenalty: 1 }, stored);
  expect(said.sampling).toMatchObject({ doSample: false, topK: 0, topP: 0.95, repetitionPenalty: 1 });
  expect([said.maxNewTokens, said.eosTokenIds.size]).toEqual([3, 0]);
});

test("a setting that only draws can use means drawing; temperature 0 means not to", () => {
  expect(settings({ topP: 0.9 }).sampling.doSample).toBe(true);
  expect(settings({ temperature: 0 }, stored).sampling.doSample).toBe(false);
  expect(settings({ temperature: 0.5, doSample: false }).sampling.doSample).toBe(false);
});

test("end tokens of config.json where generation_config.json has none", () => {
  expect([...settings({}, {}, { eos_token_id: 2 }).eosTokenIds]).toEqual([2]);
  expect([...settings({}, { eos_token_id: 3 }, { eos_token_id: 2 }).eosTokenIds]).toEqual([3]);
  expect([...settings({}, {}, { eos_token_id: "x" }).eosTokenIds]).toEqual([]);
});

test("a generation_config.json that is not understood is said so", () => {
  expect(() => settings({}, { temperature: "hot" })).toThrow("generation_config.json of m is not understood");
  expect(() => settings({}, { do_sample: true, top_p: 3 })).toThrow("topP 3 is out of range");
  expect(() => settings({ minNewTokens: -1 })).toThrow("minNewTokens is -1");
});
