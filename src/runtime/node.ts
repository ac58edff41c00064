/** The Node adapter: onnxruntime-node in a worker thread, so that training leaves the event loop free. */

import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { invariant, UserError } from "../errors.js";
import type { OnnxModel } from "../onnx/emit.js";
import type {
  Block,
  HostTensor,
  Keep,
  LentTensor,
  Runtime,
  Session,
  SessionOptions,
  Store,
  StoredTensor,
} from "./runtime.js";

/** Devices by name, with onnxruntime's name for each. */
export const devices = { cpu: "cpu", webgpu: "webgpu", cuda: "cuda", coreml: "coreml", dml: "dml" } as const;
export type Device = keyof typeof devices;

/** Devices whose sessions share a context that crashes where two threads use it at once: by name, whether one does. */
const shared: { readonly [device in Device]?: SharedArrayBuffer } = { webgpu: new SharedArrayBuffer(4) };

export interface NodeRuntimeOptions {
  readonly device?: string;
  /** Threads per operation; default: onnxruntime's choice, one per physical core. */
  readonly threads?: number;
}

type Feeds = Parameters<Session["run"]>[0];

interface Answer {
  readonly call: number;
  readonly result?: { readonly id?: number; readonly outputs?: Record<string, HostTensor> };
  /** Goes home with a failure as well. */
  readonly lent?: Record<string, HostTensor["data"]>;
  readonly error?: string;
  /** Instead of an error: how much memory a store could not have. */
  readonly noMemory?: string;
}

interface Waiter {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
  readonly received: ((answer: Answer) => void) | undefined;
}

/** The devices that this installation of onnxruntime can use, `cpu` first. */
export function availableDevices(): Device[] {
  const require = createRequire(import.meta.url);
  const { listSupportedBackends } = require("onnxruntime-node") as {
    listSupportedBackends: () => { name: string; bundled: boolean }[];
  };
  const present = new Set(listSupportedBackends().flatMap((b) => (b.bundled ? [b.name] : [])));
  return (Object.keys(devices) as Device[]).filter((d) => present.has(devices[d]));
}

function checkDevice(name: string): Device {
  const present = availableDevices();
  const found = present.find((d) => d === name);
  if (found !== undefined) return found;
  const known = Object.hasOwn(devices, name)
    ? `the device "${name}" is not available here`
    : `there is no device called "${name}"`;
  throw new UserError(`${known}: this installation has ${present.join(", ")}.`, "Pass one of those as --device.");
}

/** Starts the thread; a device that is not there is a UserError that lists those that are. */
export function openNodeRuntime(options: NodeRuntimeOptions = {}): Runtime {
  return new NodeRuntime(checkDevice(options.device ?? "cpu"), options.threads);
}

function noMemory(amount: string): UserError {
  return new UserError(
    `${amount} of memory for keys and values cannot be had.`,
    "Use shorter texts, or fewer of them at a time.",
  );
}

/** Every block within `length` numbers: what lies outside would be lost in the thread, where nobody hears of it. */
function checkBlocks(blocks: readonly Block[], length: number, from?: number): void {
  for (const b of blocks) {
    if (b.runs === 0) continue;
    const end = (start: number, stride: number): number => start + (b.runs - 1) * stride + b.length;
    invariant(b.to >= 0 && end(b.to, b.toStride) <= length, `a block to ${b.to} of a part of ${length}`);
    if (from !== undefined)
      invariant(b.from >= 0 && end(b.from, b.fromStride) <= from, `a block from ${b.from} of a part of ${from}`);
  }
}

/** A store's number, under which the thread has its memory. */
function idOf(store: Store): number {
  invariant(store instanceof NodeStore, "a store of another runtime");
  return store.id;
}

/** Counted over all runtimes, so that none takes another's store for its own. */
let storesMade = 0;

class NodeStore implements Store {
  readonly id: number = storesMade++;
  readonly parts: number;
  readonly length: number;
  private readonly ask: (request: object) => void;

  constructor(parts: number, length: number, ask: (request: object) => void) {
    const { id } = this;
    this.parts = parts;
    this.length = length;
    this.ask = ask;
    ask({ action: "allocate", id, parts, length });
    forgotten.register(this, () => ask({ action: "free", id }), this);
  }

  view(part: number, shape: readonly number[]): StoredTensor {
    invariant(shape.reduce((a, b) => a * b, 1) <= this.length, `a view [${shape}] of a part of ${this.length}`);
    return { shape, store: this, part };
  }

  copy(source: Store, blocks: readonly Block[]): void {
    invariant(source.parts === this.parts, `a copy of ${source.parts} parts to ${this.parts}`);
    checkBlocks(blocks, this.length, source.length);
    this.ask({ action: "copy", id: this.id, from: idOf(source), blocks });
  }

  dispose(): void {
    forgotten.unregister(this);
    this.ask({ action: "free", id: this.id });
  }
}

/** Frees what nobody disposed of and nobody can reach any more, such as a conversation's memory. */
const forgotten = new FinalizationRegistry((free: () => void) => free());

class NodeRuntime implements Runtime {
  readonly device: Device;
  private readonly threads: number | undefined;
  private readonly worker: Worker;
  private readonly waiting = new Map<number, Waiter>();
  private calls = 0;
  /** Why no further call can be answered. */
  private ended: Error | undefined;
  /** Shared with the thread: [calls under way there, whether the end has come]. */
  private readonly state = new Int32Array(new SharedArrayBuffer(8));

  constructor(device: Device, threads: number | undefined) {
    this.device = device;
    this.threads = threads;
    // None of the program's own flags: a worker refuses some of them (--input-type, say), and needs none.
    // The first call: the thread loads native code, in which it must not be ended either.
    Atomics.store(this.state, 0, 1);
    const settings = {
      name: "reft-runtime",
      execArgv: [],
      workerData: { state: this.state.buffer, taken: shared[device] },
    };
    this.worker = new Worker(new URL("./node-worker.mjs", import.meta.url), settings);
    this.worker.on("message", (answer: Answer) => this.settle(answer));
    this.worker.on("error", (error: Error) => this.fail(error));
    // An idle thread must not keep the process alive; while a call is out, ref() below does.
    this.worker.unref();
    process.on("exit", this.settleThread);
  }

  async open(model: OnnxModel, options: SessionOptions = {}): Promise<Session> {
    const { bytes, widening } = model;
    // The widening graph runs on the processor.
    const widen =
      widening === undefined
        ? undefined
        : { bytes: widening.bytes, options: { ...this.sessionOptions(widening, {}), executionProviders: ["cpu"] } };
    const opening = this.call("open", { bytes, options: this.sessionOptions(model, options), widen });
    const { result } = await opening.catch((error: Error) => {
      throw this.unusable(error);
    });
    const id = result?.id as number;
    const types = new Map(model.inputs.map((i) => [i.name, i.dtype]));
    return {
      run: (feeds, keeps = {}) => this.run(id, types, feeds, keeps),
      dispose: async () => {
        await this.call("close", { id });
      },
    };
  }

  /** A device may come with the installation and yet find no hardware or driver: its users are told so, not shown a fault of ours. */
  private unusable(error: Error): Error {
    const why = /Failed to get a[^\n]*adapter[^\n]*|CUDA failure[^\n]*|[^\n]*driver[^\n]*/i.exec(error.message)?.[0];
    if (this.device === "cpu" || why === undefined) return error;
    return new UserError(
      `the device "${this.device}" cannot be used on this machine: ${why.trim()}.`,
      `Pass --device cpu, or install a driver for ${this.device}.`,
      { cause: error },
    );
  }

  private async run(
    id: number,
    types: ReadonlyMap<string, string>,
    feeds: Feeds,
    keeps: Readonly<Record<string, Keep>>,
  ): Promise<Record<string, HostTensor>> {
    const typed: Record<string, unknown> = {};
    const lent: [string, LentTensor][] = [];
    for (const [name, t] of Object.entries(feeds)) {
      const dtype = types.get(name);
      if ("store" in t) {
        typed[name] = { dtype, shape: t.shape, store: idOf(t.store), part: t.part };
        continue;
      }
      const lend = "lend" in t;
      typed[name] = { dtype, shape: t.shape, data: t.data, lend };
      if (lend) lent.push([name, t]);
    }
    const kept = Object.entries(keeps).map(([name, keep]) => {
      checkBlocks(keep.blocks, keep.store.length);
      return [name, { ...keep, store: idOf(keep.store) }];
    });
    const { result } = await this.call(
      "run",
      { id, feeds: typed, keeps: Object.fromEntries(kept) },
      lent.map(([, t]) => t.data.buffer as ArrayBuffer),
      (answer) => {
        for (const [name, t] of lent) t.data = answer.lent?.[name] ?? t.data;
      },
    );
    return result?.outputs as Record<string, HostTensor>;
  }

  allocate(parts: number, length: number): Store {
    return new NodeStore(parts, length, (request) => {
      if (this.ended === undefined) this.worker.postMessage(request);
    });
  }

  async dispose(): Promise<void> {
    this.fail(new Error("internal: the runtime was disposed"));
    Atomics.store(this.state, 1, 1);
    this.worker.ref();
    // Polled: Atomics.wait would hold up the event loop. Calls not begun yet will not begin.
    while (Atomics.load(this.state, 0) > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    process.off("exit", this.settleThread);
    await this.worker.terminate();
  }

  /** Ending a thread inside a native call aborts the process: whoever exits waits for the call under way, and no other. */
  private readonly settleThread = (): void => {
    Atomics.store(this.state, 1, 1);
    for (;;) {
      const calls = Atomics.load(this.state, 0);
      if (calls === 0) return;
      Atomics.wait(this.state, 0, calls);
    }
  };

  private sessionOptions(
    { weightsRoot }: OnnxModel,
    { prepack = false, fold = false, arena = false }: SessionOptions,
  ): Record<string, unknown> {
    return {
      executionProviders: [devices[this.device]],
      graphOptimizationLevel: fold ? "basic" : "disabled",
      enableMemPattern: false,
      enableCpuMemArena: arena,
      ...(this.threads === undefined ? {} : { intraOpNumThreads: this.threads }),
      // 3: errors only. The runtime warns of every unused initializer and unknown dimension.
      logSeverityLevel: 3,
      extra: {
        session: {
          disable_prepacking: prepack ? "0" : "1",
          // Two sessions that spin while idle slow each other up to twofold.
          force_spinning_stop: "1",
          model_external_initializers_file_folder_path: weightsRoot,
        },
      },
    };
  }

  /** @param received sees every answer first, a failure too */
  private call(
    action: string,
    args: object,
    transfer: readonly ArrayBuffer[] = [],
    received?: (answer: Answer) => void,
  ): Promise<Answer> {
    const call = this.calls++;
    return new Promise((resolve, reject) => {
      if (this.ended !== undefined) throw this.ended;
      // Throws on what cannot be sent (one buffer lent twice, say): then nothing is out, and nothing waits.
      this.worker.postMessage({ call, action, ...args }, transfer);
      if (this.waiting.size === 0) this.worker.ref();
      this.waiting.set(call, { resolve, reject, received });
    });
  }

  private settle(answer: Answer): void {
    const waiter = this.waiting.get(answer.call);
    // An answer that comes after dispose(): the program must stay alive until the thread has ended.
    if (waiter === undefined) return;
    this.waiting.delete(answer.call);
    if (this.waiting.size === 0) this.worker.unref();
    waiter.received?.(answer);
    if (answer.noMemory !== undefined) waiter.reject(noMemory(answer.noMemory));
    else if (answer.error === undefined) waiter.resolve(answer);
    else waiter.reject(new Error(`onnxruntime: ${answer.error}`));
  }

  private fail(error: Error): void {
    this.ended ??= error;
    for (const w of this.waiting.values()) w.reject(error);
    this.waiting.clear();
  }
}
