/** An adapter apart from any model and any file format: what conversions pass through. */

import { UserError } from "../errors.js";
import { decodeSafetensors, type FloatTensor } from "../files/safetensors.js";
import type { ActivationName } from "../ops/index.js";
import { type AdapterConfig, parseAdapterConfig } from "./adapter.js";
import type { EditDType, Named } from "./intervention.js";
import { checkedLayout, type Layout } from "./layouts.js";
import { keysOf, type PyveneSite } from "./pyvene-keys.js";

export interface PlainEdit {
  readonly layer: number;
  /** pyvene's name of the site, or a module path such as "model.layers[8].output", which says the layer itself. */
  readonly component: string;
  /** The heads that are edited, of a component that pyvene calls head_…; undefined: all of them, or whole rows. */
  readonly heads: readonly number[] | undefined;
  /** pyreft's class name. */
  readonly intervention: string;
  /** D */
  readonly embedDim: number;
  /** r */
  readonly rank: number;
  readonly actFn: ActivationName;
  readonly dropout: number;
  /** What its linear parts are computed in. */
  readonly dtype: EditDType;
  readonly addBias: boolean | null;
  readonly link: string | number | null;
  /** By our parameters' names. */
  readonly values: Named<FloatTensor>;
}

export interface PlainAdapter {
  readonly edits: readonly PlainEdit[];
  /** As far as the files say. */
  readonly base: string | undefined;
  readonly positions: string | undefined;
  readonly shareWeights: boolean;
  readonly template: string | undefined;
  /** Our own reft_config.json, where the adapter has been one of ours. */
  readonly own: AdapterConfig | undefined;
  /** What the files do not say and was taken for granted, for the user to check. */
  readonly assumed: readonly string[];
}

/** Files to write, and what they cannot hold. */
export interface Written {
  readonly files: Readonly<Record<string, Uint8Array | string>>;
  readonly lost: readonly string[];
}

/** What the user says about an adapter whose files do not. */
export interface Said {
  readonly positions?: string;
  readonly shareWeights?: boolean;
  readonly actFn?: ActivationName;
  readonly dropout?: number;
  /** What linear parts are computed in; pyreft's files hold them in it. */
  readonly dtype?: EditDType;
  /** The class of every edit. */
  readonly intervention?: string;
}

/** A folder that can be listed and read; nothing is read before it is asked for. */
export interface FolderReader {
  readonly name: string;
  readonly names: readonly string[];
  /** Throws UserError where the file is missing or too large. */
  read(file: string): Promise<Uint8Array>;
}

/** Our own two files as a plain adapter. */
export function plainAdapter(files: { config: string; weights: Uint8Array }, name: string): PlainAdapter {
  const config = parseAdapterConfig(files.config, `${name}/reft_config.json`);
  const { tensors } = decodeSafetensors(files.weights, `${name}/reft.safetensors`);
  const keys = keysOf(config.representations.map(siteOf));
  const links = new Map<string | number, string>();
  const edits = config.representations.map((r, i): PlainEdit => {
    const own = keys[i] as string;
    const key = r.linkKey === null ? own : (links.get(r.linkKey) ?? own);
    if (r.linkKey !== null) links.set(r.linkKey, key);
    const found = [...tensors].filter(([tensor]) => tensor.startsWith(`${key}.`));
    if (found.length === 0)
      throw new UserError(`${name} has no weights for ${key}.`, "The adapter is incomplete; save it again.");
    const values = Object.fromEntries(found.map(([tensor, value]) => [tensor.slice(key.length + 1), value]));
    return { ...editOf(r), ...checkedLayout(r.intervention, values, `${name}: ${key}`) };
  });
  return {
    edits,
    base: config.base.id,
    positions: config.positions ?? undefined,
    shareWeights: config.shareWeights,
    template: config.template ?? undefined,
    own: config,
    assumed: [],
  };
}

function editOf(r: AdapterConfig["representations"][number]): Omit<PlainEdit, keyof Layout> {
  const { layer, component } = siteOf(r);
  const { heads, actFn, dropout, dtype, linkKey } = r;
  return { layer, component, heads, actFn, dropout, dtype, link: linkKey };
}

/** Where pyvene names single heads in the component. */
function siteOf({ layer, component, heads }: AdapterConfig["representations"][number]): PyveneSite {
  return { layer, component: heads === undefined ? component : `head_${component}` };
}
