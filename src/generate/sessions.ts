/** The graphs of generation, opened once for each model and once for each edited model, and kept. */

import { UserError } from "../errors.js";
import { plus, times } from "../graph/dim.js";
import { input, type Tensor } from "../graph/tensor.js";
import { headPartsOf } from "../models/attention.js";
import { CausalLM } from "../models/causal-lm.js";
import { pastInputs } from "../models/family.js";
import type { FrozenModel } from "../models/frozen-model.js";
import type { Tap } from "../models/site.js";
import { toOnnx } from "../onnx/emit.js";
import { concat, takeRows } from "../ops/index.js";
import { ReftModel } from "../reft/reft-model.js";
import type { Session } from "../runtime/runtime.js";

/** A frozen model, or one with edits. */
export type Generative = FrozenModel | ReftModel;

/**
 * - `prefill`: T tokens and no past
 * - `extend`: T tokens after a past of P cached columns
 * - `decode`: the same for one token a row
 * - `packed`: the same, with the weights packed for products of few rows
 */
export type GraphKind = "prefill" | "extend" | "decode" | "packed";

/**
 * Prompts are read with heads in so many parts at most, whose scores fit a processor's caches: at 135M parameters prompts of 500
 * and 1,000 tokens are read about a tenth faster. With 256 tokens it makes no difference; one token has next to no scores.
 */
const MOST_PARTS = 8;

/** @throws UserError where it is not one that continues texts */
export function baseOf(target: Generative): CausalLM {
  const model = target instanceof ReftModel ? target.model : target;
  if (model instanceof CausalLM) return model;
  throw new UserError(
    `${model.id} was loaded to classify texts, not to continue them.`,
    "Load it with AutoModelForCausalLM, if it is a model that writes.",
  );
}

/**
 * Packing costs a copy of the weights in 32 bits and time when it is first done: at 135M parameters 0.5 s, from 16 bits 1.3 s. It wins
 * 10–18 % of a step of one row (3 of 25 ms) and 20–30 % of one of four and more (40 and 100 ms); of 16 bits, which every step widens
 * otherwise, 30–40 %. So many tokens, where a call may decode them, are worth it. It also makes a row's
 * numbers the same bits alone and in a batch.
 */
const ONE_ROW_PAYS = { mapped: 192, widened: 64 };
const MANY_ROWS_PAY = 32;
/** Bytes of weights that are packed without a thought. */
const PACK_AT_ONCE = 2 ** 28;

const untapped: Tap = (_site, h) => h;

function readingParts({ config }: CausalLM): number {
  return headPartsOf(config).findLast((parts) => parts <= MOST_PARTS) ?? 1;
}

/**
 * Inputs: `ids`, `positions` [B, T], `keyPositions` [B, P+T], `last` [B] (the flat row of each row's last token), the past and
 * the edits' own. Outputs: `logits` [B, V] at the last tokens; the live tokens' `keys` and
 * `values` [B, L·KV, T, hd], joined because each fetched output is a copy and a call.
 */
function outputsOf(kind: GraphKind, model: CausalLM, tap: Tap, queryParts: number): Record<string, Tensor> {
  const past = kind === "prefill" ? undefined : pastInputs(model.config);
  // Known to be one, it leaves heads in their places: no transposes.
  const t = kind === "decode" || kind === "packed" ? 1 : times(queryParts, "T");
  const tokens = {
    ids: input("ids", "int64", ["B", t]),
    positions: input("positions", "int32", ["B", t]),
    keyPositions: input("keyPositions", "int32", ["B", past === undefined ? t : plus("P", t)]),
    fewRows: kind === "packed",
    queryParts,
    headParts: kind === "prefill" || kind === "extend" ? readingParts(model) : 1,
  };
  const { hidden, live } = model.forward(past === undefined ? tokens : { ...tokens, past }, tap);
  const last = takeRows(hidden, input("last", "int64", ["B"]));
  return {
    logits: model.logits(last, tokens.fewRows),
    keys: concat(...live.map((l) => l.keys), { axis: 1 }),
    values: concat(...live.map((l) => l.values), { axis: 1 }),
  };
}

/** The opened graphs of one model, with or without edits. They own native memory until disposed. */
export class GenerationSessions {
  readonly #model: CausalLM;
  readonly #tap: () => Tap;
  readonly #open = new Map<string, Promise<Session>>();

  constructor(target: Generative) {
    this.#model = baseOf(target);
    this.#tap = target instanceof ReftModel ? () => target.tap({ training: false }).tap : () => untapped;
  }

  /**
   * The graph, opened at the first call.
   *
   * @param queryParts in how many stretches its T tokens attend: a divisor of T
   */
  get(kind: GraphKind, queryParts = 1): Promise<Session> {
    const key = `${kind} ${queryParts}`;
    const before = this.#open.get(key);
    if (before !== undefined) return before;
    const model = toOnnx(outputsOf(kind, this.#model, this.#tap(), queryParts), this.#model.runtime.device);
    const { quantised } = this.#model.checkpoint;
    // Reading prompts makes large activations, and 16-bit weights are widened step by step: memory to use again. A packed
    // step has neither, and its allocations are small.
    const session = this.#model.runtime.open(model, {
      prepack: kind === "packed" || quantised?.int8Activations === "always",
      fold: kind === "packed" && quantised === undefined && this.#model.widens,
      arena: kind !== "packed" || quantised !== undefined,
    });
    this.#open.set(key, session);
    // A failed opening may be tried again.
    session.catch(() => this.#open.delete(key));
    return session;
  }

  /**
   * The graph for one more token a row: packed where that pays. It depends on the call alone, not on earlier ones nor on how long
   * answers turn out, since packed products round otherwise: same call, same bytes.
   *
   * @param rows with which the call began
   * @param most tokens this call may decode
   */
  decoding(rows: number, most: number): Promise<Session> {
    const model = this.#model;
    if (model.checkpoint.quantised !== undefined) return this.get("packed");
    const enough = rows > 1 ? MANY_ROWS_PAY : ONE_ROW_PAYS[model.widens ? "widened" : "mapped"];
    const pays = model.floatBytes <= PACK_AT_ONCE || most >= enough;
    return this.get(model.packable && pays ? "packed" : "decode");
  }

  async dispose(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(open.map(async (session) => (await session).dispose()));
  }
}

const kept = new WeakMap<Generative, GenerationSessions>();

/** The sessions of `target`: made at the first call, kept with it. Disposing of its runtime frees them too. */
export function sessionsOf(target: Generative): GenerationSessions {
  const before = kept.get(target);
  if (before !== undefined) return before;
  const made = new GenerationSessions(target);
  kept.set(target, made);
  return made;
}

/** Frees what generation opened for `target` (for an edited model, not for the model under it). */
export async function releaseSessions(target: Generative): Promise<void> {
  const sessions = kept.get(target);
  kept.delete(target);
  await sessions?.dispose();
}
