/** The port to native execution: model bytes in, numbers out. Adapters: node.ts. */

import type { OnnxModel } from "../onnx/emit.js";

/** A dense array in host memory, row-major. */
export interface HostTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array | Int32Array | Uint8Array;
}

/**
 * A tensor whose memory is handed over for the run and handed back after it, without a copy. While the run is out, `data`
 * is empty; after it `data` is a view of the same values. For large state that is fed again and again (key/value caches).
 */
export interface LentTensor {
  readonly shape: readonly number[];
  data: HostTensor["data"];
  readonly lend: true;
}

/** Runs of numbers, one after another: `runs` of them of `length` each, run i from `from + i·fromStride` to `to + i·toStride`. */
export interface Block {
  readonly runs: number;
  readonly length: number;
  readonly from: number;
  readonly fromStride: number;
  readonly to: number;
  readonly toStride: number;
}

/**
 * Float32 memory that lives beside the sessions, for large state that run after run reads: `parts` arrays of `length` numbers,
 * at first 0. Memory that goes to and fro, as a loan does, has both threads collect garbage at every run: 10–15 ms at 100 MB.
 * Calls are carried out in their order, later runs see what they did; not to be changed while a run that reads or fills it is out.
 * Where the memory cannot be had, the run that wants to read it fails.
 */
export interface Store {
  readonly parts: number;
  readonly length: number;
  /** The beginning of a part, as a feed. */
  view(part: number, shape: readonly number[]): StoredTensor;
  /** Copies blocks of each part of `source`, which may be this store, to the part of the same number. */
  copy(source: Store, blocks: readonly Block[]): void;
  /** Frees the memory; more than once does nothing. */
  dispose(): void;
}

export interface StoredTensor {
  readonly shape: readonly number[];
  readonly store: Store;
  readonly part: number;
}

/** An output that goes to a store after the run and does not come back: for part p, blocks from number p·`partStride` on. */
export interface Keep {
  readonly store: Store;
  readonly partStride: number;
  readonly blocks: readonly Block[];
}

export interface SessionOptions {
  /**
   * Let the runtime repack weights for its kernels: faster products, a copy of the weights in memory and a longer opening, so
   * for graphs that run often. Default false.
   */
  readonly prepack?: boolean;
  /** Compute as the graph is opened what depends on weights alone, such as 16-bit weights in 32 bits. Default false. */
  readonly fold?: boolean;
  /**
   * Keep freed memory for the next allocation: worth it wherever large activations come and go, as in training and in reading
   * prompts, or weights are widened step by step. Default false.
   */
  readonly arena?: boolean;
}

/** An opened graph. It owns native memory until disposed. */
export interface Session {
  /** Runs the graph on inputs by name; returns every output by name, but those that are kept in a store. */
  run(
    feeds: Readonly<Record<string, HostTensor | LentTensor | StoredTensor>>,
    keeps?: Readonly<Record<string, Keep>>,
  ): Promise<Record<string, HostTensor>>;
  dispose(): Promise<void>;
}

/** A device that graphs are opened on. */
export interface Runtime {
  readonly device: string;
  open(model: OnnxModel, options?: SessionOptions): Promise<Session>;
  /** Memory beside the sessions: `parts` arrays of `length` zeros. */
  allocate(parts: number, length: number): Store;
  /** Frees every session and store and the thread behind them. */
  dispose(): Promise<void>;
}
