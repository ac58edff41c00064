/** The frontier between what is frozen and what depends on a trainable tensor, and the cut along it. Knows no op. */

import { dependents, Tensor, topological } from "./tensor.js";

/**
 * The tensors at which to cut: frozen values that depend on `content` (the tokens), feed something that depends on a
 * trainable tensor, and do not follow cheaply from other tensors of the cut. In the order of the graph.
 */
export function frontier(outputs: readonly Tensor[], content: Tensor): Tensor[] {
  const order = topological(outputs);
  const trained = dependents(order, (t) => t.source.kind === "input" && t.source.trainable);
  const told = dependents(order, (t) => t === content);
  const border = new Set<Tensor>();
  for (const t of order)
    if (trained.has(t)) for (const x of t.inputs) if (!trained.has(x) && told.has(x)) border.add(unselected(x, told));
  return order.filter((t) => border.has(t) && !derivable(t, border, told));
}

/** What rows are picked from, since which ones are picked may change from step to step. */
function unselected(x: Tensor, told: ReadonlySet<Tensor>): Tensor {
  const [source] = x.inputs;
  const selects = x.source.kind === "op" && x.source.op.selects === true;
  return selects && source !== undefined && told.has(source) ? unselected(source, told) : x;
}

/** Whether `t` follows from other tensors of the border by ops that cost next to nothing: no matrix product on the way. */
function derivable(t: Tensor, border: ReadonlySet<Tensor>, told: ReadonlySet<Tensor>): boolean {
  const seen = new Set<Tensor>();
  const walk = [t];
  for (let x = walk.pop(); x !== undefined; x = walk.pop()) {
    if (x.source.kind !== "op" || x.source.op.flops !== undefined) return false;
    for (const y of x.inputs) {
      if (seen.has(y) || border.has(y) || !told.has(y)) continue;
      seen.add(y);
      walk.push(y);
    }
  }
  return true;
}

/**
 * The same graph with some tensors replaced, wherever they are used; parts that do not use them are shared. A replacement
 * may itself be replaced, or use what is replaced.
 */
export function substitute(outputs: readonly Tensor[], replacements: ReadonlyMap<Tensor, Tensor>): Tensor[] {
  const done = new Map<Tensor, Tensor>();
  const resolve = (t: Tensor): Tensor => {
    let x = t;
    for (let next = replacements.get(x); next !== undefined; next = replacements.get(x)) x = next;
    return x;
  };
  // Depth first with an own stack: graphs are thousands of nodes deep.
  const stack = outputs.map(resolve).reverse();
  for (let t = stack.at(-1); t !== undefined; t = stack.at(-1)) {
    const inputs = t.inputs.map(resolve);
    const waiting = inputs.filter((x) => !done.has(x));
    if (done.has(t) || waiting.length === 0) {
      stack.pop();
      if (!done.has(t))
        done.set(
          t,
          withInputs(
            t,
            inputs.map((x) => done.get(x) as Tensor),
          ),
        );
    } else stack.push(...waiting);
  }
  return outputs.map((t) => done.get(resolve(t)) as Tensor);
}

function withInputs(t: Tensor, inputs: readonly Tensor[]): Tensor {
  if (t.source.kind !== "op" || inputs.every((x, i) => x === t.inputs[i])) return t;
  return new Tensor(t.type, { ...t.source, inputs });
}
