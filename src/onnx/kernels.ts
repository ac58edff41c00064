/** What the runtime has kernels for on a device. What it has none for, it would do on the processor, with copies there and back. */

import type { Kernels } from "../graph/op.js";

const all: Kernels = { transposedMatMul: true, rowByMatrix: false, halves: true, trigonometry: true, mapped: false };

/** Of devices that are not here: all kernels. */
const own: Readonly<Record<string, Partial<Kernels>>> = {
  cpu: { rowByMatrix: true, mapped: true },
  // It knows no bfloat16, and float16 only where the graphics card has it. Sines are promised within 2⁻¹¹, from −π to π alone
  // (WGSL's table of accuracies).
  webgpu: { transposedMatMul: false, halves: false, trigonometry: false },
};

export function kernelsOn(device: string): Kernels {
  return { ...all, ...own[device] };
}
