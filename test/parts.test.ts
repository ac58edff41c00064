/** Labelled rows in parts: the same loss and gradients, with one part's logits at a time. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { collate } from "../src/data/collate.js";
import { topological } from "../src/graph/tensor.js";
import { toOnnx } from "../src/onnx/emit.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { wholeStep } from "../src/train/loss-graph.js";
import { inParts, int64s, labelledFeeds } from "../src/train/next-token.js";
import { tokensOf } from "../src/train/step.js";
import { expectClose } from "./support.js";
import { openTiny, tinyExamples, tinyReft } from "./tiny.js";

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

test("loss and gradients do not depend on the number of parts", async () => {
  const reft = tinyReft(await openTiny(runtime));
  const examples = tinyExamples(5);
  const batch = collate(examples, { padTokenId: 0 });
  const weights = { shape: [batch.labels.length], data: new Float32Array(batch.labels.length).fill(0.1) };
  const rows = Object.fromEntries(
    reft.edits.map((_, i) => [`rows.${i}`, int64s(batch.editRows[i] ?? batch.editRows[0] ?? [])]),
  );
  const feeds = {
    ...reft.feeds(),
    ...rows,
    ...tokensOf(batch),
    ...labelledFeeds(examples, { padTokenId: 0 }).feeds,
    weights,
  };
  const run = async (parts: number) => {
    const model = toOnnx(wholeStep(reft, { training: true, parts }));
    const session = await runtime.open(model, reft.model.trainingOptions);
    const all = inParts(feeds, ["labelRows", "labels", "weights"], parts);
    const result = await session.run(
      Object.fromEntries(model.inputs.map(({ name }) => [name, all[name] as (typeof feeds)["weights"]])),
    );
    await session.dispose();
    return result;
  };
  const whole = await run(1);
  // More parts than rows leaves some of them empty.
  for (const parts of [2, 3, 64]) {
    const cut = await run(parts);
    expect(Object.keys(cut).sort()).toEqual(Object.keys(whole).sort());
    for (const [name, t] of Object.entries(whole))
      expectClose(cut[name]?.data as Float32Array, t.data as Float32Array, 1e-5, `${name} in ${parts} parts`);
  }
});

test("no tensor has all labelled rows by the vocabulary", async () => {
  const reft = tinyReft(await openTiny(runtime));
  const { vocabSize } = reft.model.config;
  const logits = topological(Object.values(wholeStep(reft, { training: true, parts: 4 }))).filter(
    (t) => t.shape.length === 2 && t.dim(1) === vocabSize && t.source.kind === "op",
  );
  expect(new Set(logits.map((t) => t.dim(0)))).toEqual(new Set(["M.0", "M.1", "M.2", "M.3"]));
});
