/** fromPretrained: a name in, a model or a tokenizer out, by way of the hub's cache, the files and the runtime. */

import { UserError } from "./errors.js";
import type { QuantisedMatrices } from "./files/checkpoint.js";
import { openCheckpoint } from "./files/checkpoint-node.js";
import { openFolder } from "./files/folder-node.js";
import type { Quantisation } from "./files/quantise.js";
import { openCodes } from "./files/quantised-node.js";
import { readTokenizerFiles } from "./files/tokenizer-node.js";
import { readWeight } from "./files/weight-node.js";
import { type ResolveOptions, resolveModel } from "./hub/resolve.js";
import { CausalLM } from "./models/causal-lm.js";
import { type ClassifierOptions, SequenceClassifier, storedHead } from "./models/classifier.js";
import type { FrozenModel, ModelParts } from "./models/frozen-model.js";
import type { MatrixPlace } from "./models/weights.js";
import { maxAdapterBytes } from "./reft/adapter.js";
import { adapterOnModel, type Imported, readAnyAdapter } from "./reft/convert.js";
import type { Said } from "./reft/plain-adapter.js";
import { type NodeRuntimeOptions, openNodeRuntime } from "./runtime/node.js";
import { Tokenizer } from "./tokens/tokenizer.js";

export interface QuantisationOptions {
  /** Read the model's matrices in blocks of 4-bit numbers, made once and kept in a cache folder. */
  readonly loadIn4bit?: boolean;
  /** The same in 8 bits. */
  readonly loadIn8bit?: boolean;
  /** How many neighbouring numbers share a scale: a power of two from 16 to 256. Default: 32 in 4 bits, 128 in 8. */
  readonly quantBlockSize?: number;
  /**
   * Round activations to 8 bits as they are multiplied, as tokens are generated or always, and let generation read the output
   * head in 8 bits: the fastest way to decode, whose products err by 5–7e-3 of their size. "always" is for processors with
   * instructions for it (VNNI); elsewhere training and reading prompts get slower. Default: products are exact, of the rounded weights.
   */
  readonly int8Activations?: "generation" | "always" | undefined;
  /** Where quantised copies are kept. Default: REFT_CACHE, else the user's cache folder. They may be deleted at any time. */
  readonly quantCacheDir?: string;
  /** Called while a copy is made. */
  readonly onQuantise?: (done: number, total: number) => void;
}

export interface ModelOptions extends ResolveOptions, NodeRuntimeOptions, QuantisationOptions {}

/** Loads causal language models, as transformers' class of this name does. */
export const AutoModelForCausalLM: {
  /**
   * Opens a model from the hub ("owner/name"), a local folder, or the package itself ("builtin"). Weights stay in their
   * files, mapped into memory; nothing is read until it is used. Call `dispose()` to end its thread early.
   *
   * @throws UserError for what cannot be found, downloaded, read, or is not supported; and for a device that is not there
   */
  fromPretrained(id: string, options?: ModelOptions): Promise<CausalLM>;
} = {
  fromPretrained: (id, options = {}) => open(id, options, async (parts) => new CausalLM(parts)),
};

export interface ClassifierModelOptions extends ModelOptions, ClassifierOptions {}

/** Loads models that classify texts, as transformers' class of this name does. */
export const AutoModelForSequenceClassification: {
  /**
   * Opens an encoder or a decoder with a classification head, from where `AutoModelForCausalLM` finds models. The head's
   * weights are the checkpoint's, where it has them; otherwise each `getReftModel` draws its own. They are trained along
   * with the edits, and saved with them.
   *
   * @throws UserError as `AutoModelForCausalLM.fromPretrained` does, and where the checkpoint's head has another number of
   * labels
   */
  fromPretrained(id: string, options?: ClassifierModelOptions): Promise<SequenceClassifier>;
} = {
  fromPretrained: (id, options = {}) =>
    open(id, options, async (parts) => {
      const { checkpoint } = parts;
      const stored = new Map<string, Float32Array>();
      for (const name of storedHead(checkpoint, options)) {
        const place = checkpoint.weights.get(name);
        if (place !== undefined) stored.set(name, await readWeight(place, name));
      }
      return new SequenceClassifier(parts, options, stored);
    }),
};

async function open<M extends FrozenModel>(
  id: string,
  options: ModelOptions,
  make: (parts: ModelParts) => Promise<M>,
): Promise<M> {
  const coding = codingOf(options);
  const source = await resolveModel(id, options);
  const checkpoint = await openCheckpoint(source.folder);
  const { device, threads } = options;
  const runtime = openNodeRuntime({
    ...(device === undefined ? {} : { device }),
    ...(threads === undefined ? {} : { threads }),
  });
  try {
    const parts = { id: source.id, revision: source.revision, checkpoint, runtime };
    const model = await make(parts);
    if (coding === undefined) return model;
    return await make({ ...parts, checkpoint: { ...checkpoint, quantised: await quantised(model, coding, options) } });
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

/**
 * How weights are to be coded; undefined where they are not.
 *
 * @throws UserError for options that contradict each other
 */
export function codingOf({
  loadIn4bit = false,
  loadIn8bit = false,
  quantBlockSize,
  int8Activations,
}: QuantisationOptions): Quantisation | undefined {
  if (loadIn4bit && loadIn8bit)
    throw new UserError("loadIn4bit and loadIn8bit are both set.", "Choose one of the two.");
  if (!loadIn4bit && !loadIn8bit) {
    const [stray] = Object.entries({ quantBlockSize, int8Activations }).find(([, v]) => v !== undefined) ?? [];
    if (stray === undefined) return undefined;
    throw new UserError(`${stray} is for quantised models.`, "Set loadIn4bit or loadIn8bit, too.");
  }
  const blockSize = quantBlockSize ?? (loadIn4bit ? 32 : 128);
  if (![16, 32, 64, 128, 256].includes(blockSize))
    throw new UserError(`quantBlockSize is ${blockSize}.`, "Choose 16, 32, 64, 128 or 256.");
  return { bits: loadIn4bit ? 4 : 8, blockSize };
}

async function quantised(
  model: FrozenModel,
  coding: Quantisation,
  { quantCacheDir: cacheDir, signal, onQuantise: onProgress, int8Activations }: ModelOptions,
): Promise<QuantisedMatrices> {
  const code = (places: Iterable<readonly [string, MatrixPlace]>, own: Quantisation): ReturnType<typeof openCodes> =>
    openCodes(
      Array.from(places, ([name, { outputs, inputs, transposed = false }]) => {
        const place = model.checkpoint.weights.get(name);
        if (place === undefined) throw new Error(`internal: no weight ${name}`);
        return { name, place, outputs, inputs, transposed };
      }),
      { ...own, cacheDir, signal, onProgress },
    );
  const body = await code(model.matrices(), coding);
  const withHead = int8Activations !== undefined && model instanceof CausalLM;
  const head = withHead ? await code([model.headPlace], { bits: 8, blockSize: 128 }) : [];
  return { matrices: new Map([...body, ...head]), int8Activations };
}

/** Loads tokenizers, as transformers' class of this name does. */
export const AutoTokenizer: {
  /** Reads tokenizer.json and what goes with it, from where `AutoModelForCausalLM` finds the model. */
  fromPretrained(id: string, options?: ResolveOptions): Promise<Tokenizer>;
} = {
  async fromPretrained(id, options = {}) {
    const source = await resolveModel(id, options);
    return Tokenizer.fromFiles(await readTokenizerFiles(source.folder, source.id));
  },
};

/**
 * Puts an adapter that pyreft, EasySteer or AdapterHub's `adapters` wrote on the model that it was trained on.
 *
 * @param said what their files do not hold: positions, activation, …; what is not said is listed in `assumed`
 * @throws UserError where the folder is none of these, its files are damaged or hostile, or it does not fit the model
 */
export async function importAdapter(folder: string, model: CausalLM, said: Said = {}): Promise<Imported> {
  const adapter = await readAnyAdapter(await openFolder(folder, maxAdapterBytes), said);
  return adapterOnModel(adapter, model, said);
}
