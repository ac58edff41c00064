// The thread in which onnxruntime lives: its run() blocks, and must not block the program that asked.
// Plain JavaScript, so that it is the same file under the test runner and in the built package.

import { parentPort, workerData } from "node:worker_threads";

/**
 * Shared with the program: [calls under way, whether the end has come]. Ending the thread inside a native call aborts the
 * whole process, so the program waits for 0; and a call is counted before it looks whether it may still begin.
 */
const state = new Int32Array(workerData.state);
// Loading native code is such a call too: the program counted it when it made this thread.
const { InferenceSession, Tensor } = await import("onnxruntime-node").finally(() => {
  Atomics.sub(state, 0, 1);
  Atomics.notify(state, 0);
});

const sessions = new Map();
/** By number: the parts, or why there are none. */
const stores = new Map();

/** Memory that cannot be had: the user's to mend, not a fault of ours. */
class NoMemory extends Error {}
let next = 0;

/** On a device that one thread of the program may use at a time: whether one does. */
const taken = workerData.taken === undefined ? undefined : new Int32Array(workerData.taken);
let turn = Promise.resolve();

/** Runs `work` while no other thread uses the device; a thread's own works one after another. */
function exclusively(work) {
  if (taken === undefined) return work();
  const mine = turn.then(async () => {
    while (Atomics.compareExchange(taken, 0, 0, 1) !== 0) Atomics.wait(taken, 0, 1);
    try {
      return await work();
    } finally {
      Atomics.store(taken, 0, 0);
      Atomics.notify(taken, 0, 1);
    }
  });
  turn = mine.catch(() => {});
  return mine;
}

async function act(action, args) {
  Atomics.add(state, 0, 1);
  try {
    if (Atomics.load(state, 1) === 1) throw new Error("the runtime was disposed");
    return await exclusively(() => actions[action](args));
  } finally {
    Atomics.sub(state, 0, 1);
    Atomics.notify(state, 0);
  }
}

const actions = {
  async open({ bytes, options, widen }) {
    const externalData = widen === undefined ? [] : await widened(widen);
    const session = await InferenceSession.create(bytes, { ...options, externalData });
    sessions.set(next, session);
    return { id: next++ };
  },

  async run({ id, feeds, keeps }) {
    const session = sessions.get(id);
    if (session === undefined) throw new Error("the session was disposed");
    const tensors = {};
    for (const [name, feed] of Object.entries(feeds)) tensors[name] = new Tensor(feed.dtype, dataOf(feed), feed.shape);
    for (const { store } of Object.values(keeps)) partsOf(store);
    const results = await session.run(tensors);
    const outputs = {};
    const transfer = new Set();
    for (const [name, tensor] of Object.entries(results)) {
      if (name in keeps) continue;
      outputs[name] = { shape: tensor.dims, data: tensor.data };
      transfer.add(tensor.data.buffer);
    }
    return { outputs, transfer, results };
  },

  async close({ id }) {
    await sessions.get(id)?.release();
    sessions.delete(id);
    return {};
  },
};

/** Weights as the graph wants them, by the locations that it looks for. */
async function widened({ bytes, options }) {
  const session = await InferenceSession.create(bytes, options);
  const weights = await session.run({});
  await session.release();
  return Object.entries(weights).map(([path, { data }]) => ({
    path,
    data: Buffer.from(data.buffer, data.byteOffset, data.byteLength),
  }));
}

function partsOf(id) {
  const parts = stores.get(id);
  if (parts === undefined) throw new Error("the store was disposed");
  if (parts instanceof Error) throw parts;
  return parts;
}

function dataOf({ data, store, part, shape }) {
  if (store === undefined) return data;
  return partsOf(store)[part].subarray(
    0,
    shape.reduce((a, b) => a * b, 1),
  );
}

function copyBlock(source, start, target, { runs, length, from, fromStride, to, toStride }) {
  const first = start + from;
  for (let i = 0; i < runs; i++) {
    const at = first + i * fromStride;
    target.set(source.subarray(at, at + length), to + i * toStride);
  }
}

/** What stores are asked for: carried out at once and not answered. */
const requests = {
  allocate({ id, parts, length }) {
    try {
      stores.set(
        id,
        Array.from({ length: parts }, () => new Float32Array(length)),
      );
    } catch {
      stores.set(id, new NoMemory(`${Math.ceil((4 * parts * length) / 1e6)} MB`));
    }
  },

  copy({ id, from, blocks }) {
    const [target, source] = [stores.get(id), stores.get(from) ?? new Error("a store was copied that was disposed")];
    if (!Array.isArray(target)) return;
    if (!Array.isArray(source)) stores.set(id, source);
    else
      for (const block of blocks)
        target.forEach((part, p) => {
          copyBlock(source[p], 0, part, block);
        });
  },

  free({ id }) {
    stores.delete(id);
  },
};

/** Puts outputs where they are kept. */
function keepOutputs(results, keeps) {
  for (const [name, { store, partStride, blocks }] of Object.entries(keeps)) {
    const { data } = results[name];
    stores.get(store)?.forEach((part, p) => {
      for (const block of blocks) copyBlock(data, p * partStride, part, block);
    });
  }
}

parentPort.on("message", async ({ call, action, ...args }) => {
  if (action in requests) return requests[action](args);
  // What was lent goes home with the answer, whatever it is.
  const lent = {};
  const buffers = new Set();
  for (const [name, { lend, data }] of Object.entries(args.feeds ?? {})) {
    if (!lend) continue;
    lent[name] = data;
    buffers.add(data.buffer);
  }
  try {
    const { transfer = [], results, ...result } = await act(action, args);
    parentPort.postMessage({ call, result, lent }, [...buffers, ...transfer]);
    // After the answer: the program goes on meanwhile, and this thread takes no other message before it is done.
    if (results !== undefined) keepOutputs(results, args.keeps);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const failure = error instanceof NoMemory ? { noMemory: message } : { error: message };
    parentPort.postMessage({ call, lent, ...failure }, [...buffers]);
  }
});
