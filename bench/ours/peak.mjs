// The fastest matrix product the runtime does on this machine: the yardstick for GFLOP/s.

import { input } from "../../dist/graph/tensor.js";
import { toOnnx } from "../../dist/onnx/emit.js";
import { gemm, reduceSum } from "../../dist/ops/index.js";
import { openNodeRuntime } from "../../dist/runtime/node.js";
import { readJob, report } from "./child.mjs";

const { device, rows = 1024, width = 2048, products = 12, repeats = 5 } = readJob();

// A chain of products in one run: what feeding and fetching cost is nothing beside it.
const w = input("w", "float32", [width, width]);
let x = input("x", "float32", [rows, width]);
for (let i = 0; i < products; i++) x = gemm(x, w, {});
const runtime = openNodeRuntime({ device });
const session = await runtime.open(toOnnx({ sum: reduceSum(x, { axes: [0, 1] }) }, device));

// Small enough that the chain neither grows nor falls among the slow subnormal numbers.
const values = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i) * Math.sqrt(2 / width));
const feeds = {
  x: { shape: [rows, width], data: values(rows * width) },
  w: { shape: [width, width], data: values(width * width) },
};
let best = Infinity;
for (let i = 0; i <= repeats; i++) {
  const began = performance.now();
  await session.run(feeds);
  if (i > 0) best = Math.min(best, (performance.now() - began) / 1000);
}
await runtime.dispose();
report({ gflops: (2 * rows * width * width * products) / best / 1e9 });
