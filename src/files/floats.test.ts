/** Floats in 16 bits and back, against torch's roundings. */
import { expect, test } from "vitest";
import { goldenJson } from "../../test/support.js";
import { fromFloats, toFloats } from "./floats.js";

const types = { bfloat16: "BF16", float16: "F16" } as const;

test.each(["BF16", "F16"] as const)("every number of %s comes back", (dtype) => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const floats = toFloats(all.slice().buffer, dtype);
  const back = fromFloats(floats, dtype);
  for (const bits of all)
    if (Number.isNaN(floats[bits])) expect(toFloats(back.slice(bits, bits + 1).buffer, dtype)[0]).toBeNaN();
    else if (back[bits] !== bits) expect.fail(`${bits} (${floats[bits]}) came back as ${back[bits]}`);
});

test("numbers between two are rounded as torch rounds them, ties to even", () => {
  interface Row {
    readonly op: string;
    readonly attrs: { readonly to?: string };
    readonly inputs: readonly { readonly data: readonly number[] }[];
    readonly output: { readonly data: readonly number[] };
  }
  const rows = goldenJson<Row[]>("ops/ops.json").filter(({ op, attrs }) => op === "roundTo" && attrs.to !== "float32");
  expect(rows).toHaveLength(4);
  for (const { attrs, inputs, output } of rows) {
    const dtype = types[attrs.to as keyof typeof types];
    const x = Float32Array.from(inputs[0]?.data ?? []);
    expect([...toFloats(fromFloats(x, dtype).slice().buffer, dtype)]).toEqual([...Float32Array.from(output.data)]);
  }
});

test("what is too large is infinite", () => {
  expect([...fromFloats(Float32Array.of(65519, 65520, -1e30), "F16")]).toEqual([0x7bff, 0x7c00, 0xfc00]);
  expect([...fromFloats(Float32Array.of(3.3e38, 3.4e38, -3.4028234e38), "BF16")]).toEqual([0x7f78, 0x7f80, 0xff80]);
});
