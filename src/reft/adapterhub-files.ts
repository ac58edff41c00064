/** ReFT adapters of AdapterHub's `adapters` library: adapter_config.json with adapter.safetensors or pytorch_adapter.bin. */

import { z } from "zod";
import { UserError } from "../errors.js";
import { parseJsonObject } from "../files/checkpoint.js";
import { decodeSafetensors } from "../files/safetensors.js";
import { decodeTorch, type TensorToSave } from "../files/torch-file.js";
import { type ActivationName, activations } from "../ops/index.js";
import { hubLayoutOf } from "./layouts.js";
import type { FolderReader, PlainAdapter, PlainEdit, Said } from "./plain-adapter.js";

export const hubConfigFile = "adapter_config.json";
const [safeFile, torchFile] = ["adapter.safetensors", "pytorch_adapter.bin"];

const count = z.number().int().min(0).max(1e6);
const schema = z.object({
  config: z.object({
    architecture: z.literal("reft", { error: 'is not "reft"' }),
    prefix_positions: count,
    suffix_positions: count,
    orthogonality: z.boolean(),
    tied_weights: z.boolean().default(false),
    // A class attribute of theirs, which their own files leave out.
    subtract_projection: z.boolean().optional(),
    dropout: z.number().min(0).max(1).default(0),
    non_linearity: z.string().max(100).nullish(),
  }),
  model_name: z.string().max(500).nullish(),
});
type HubConfig = z.infer<typeof schema>["config"];

/**
 * Reads an AdapterHub folder.
 *
 * @throws UserError where a file is missing, damaged or hostile, or the adapter is of another method
 */
export async function readAdapterHub(folder: FolderReader, said: Said): Promise<PlainAdapter> {
  const where = `${folder.name}/${hubConfigFile}`;
  const parsed = schema.safeParse(parseJsonObject(new TextDecoder().decode(await folder.read(hubConfigFile)), where));
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new UserError(
      `${where}: ${issue?.path.join(".")} ${issue?.message}.`,
      "Only ReFT adapters are converted; LoRA and bottleneck adapters are not edits of hidden states.",
    );
  }
  const { config, model_name: base } = parsed.data;
  const units = unitsOf(await readState(folder), config, folder.name);
  const kind = said.intervention ?? classOf(config);
  const shared = {
    actFn: said.actFn ?? activationOf(config, where),
    dropout: said.dropout ?? config.dropout,
    dtype: said.dtype ?? ("float32" as const),
    component: "block_output",
    heads: undefined,
    link: null,
  };
  const edits = units.map(
    ({ layer, state, name }): PlainEdit => ({ layer, ...hubLayoutOf(kind, state, name), ...shared }),
  );
  const guessed = !config.orthogonality && config.subtract_projection === undefined && said.intervention === undefined;
  return {
    edits,
    base: base ?? undefined,
    positions: positionsOf(config, where),
    shareWeights: config.tied_weights,
    template: undefined,
    own: undefined,
    assumed: guessed
      ? ["class NoreftIntervention: AdapterHub's files do not tell NoReFT from DiReFT (--intervention nodireft)"]
      : [],
  };
}

/** AdapterHub's DiReFT has no orthonormality: it is the paper's, and pyreft's NodiReFT. */
function classOf({ orthogonality, subtract_projection: subtract = true }: HubConfig): string {
  if (orthogonality) return subtract ? "LoreftIntervention" : "DireftIntervention";
  return subtract ? "NoreftIntervention" : "NodireftIntervention";
}

function activationOf({ non_linearity: name }: HubConfig, where: string): ActivationName {
  const known = name?.toLowerCase() ?? "linear";
  if (Object.hasOwn(activations, known)) return known as ActivationName;
  throw new UserError(
    `${where}: there is no activation called ${JSON.stringify(name)} here.`,
    `Supported are ${Object.keys(activations).join(", ")}.`,
  );
}

function positionsOf({ prefix_positions: f, suffix_positions: l }: HubConfig, where: string): string {
  if (f + l === 0) throw new UserError(`${where}: the adapter edits no position.`, "Is the file damaged?");
  return [f > 0 ? `f${f}` : "", l > 0 ? `l${l}` : ""].filter((part) => part !== "").join("+");
}

async function readState(folder: FolderReader): Promise<Map<string, TensorToSave>> {
  if (folder.names.includes(safeFile))
    return decodeSafetensors(await folder.read(safeFile), `${folder.name}/${safeFile}`).tensors;
  if (folder.names.includes(torchFile)) return decodeTorch(await folder.read(torchFile), `${folder.name}/${torchFile}`);
  throw new UserError(`${folder.name} has neither ${safeFile} nor ${torchFile}.`, "The adapter is incomplete.");
}

interface Unit {
  readonly layer: number;
  readonly unit: number;
  readonly state: Map<string, TensorToSave>;
  readonly name: string;
}

/** The tensors by layer and unit: every layer's first unit before any layer's second, as ours and pyreft's edits go. */
function unitsOf(state: ReadonlyMap<string, TensorToSave>, config: HubConfig, name: string): Unit[] {
  const units = new Map<string, Unit>();
  const names = new Set<string>();
  for (const [key, tensor] of state) {
    const match = /\.(\d{1,6})\.reft_layer\.refts\.([^.]{1,200})\.units\.([01])\.(.+)$/.exec(key);
    if (match === null)
      throw new UserError(
        `${name}: ${JSON.stringify(key.slice(0, 120))} is no tensor of a ReFT adapter.`,
        "Only adapters of ReFT alone are converted, without heads or other methods.",
      );
    const [, layer, adapter, unit, rest] = match as unknown as [string, string, string, string, string];
    names.add(adapter);
    const id = `${layer}.${unit}`;
    const at = units.get(id) ?? {
      layer: Number(layer),
      unit: Number(unit),
      state: new Map(),
      name: `${name}: layer ${id}`,
    };
    at.state.set(rest, tensor);
    units.set(id, at);
  }
  if (names.size !== 1)
    throw new UserError(`${name} holds ${names.size} adapters, not one.`, "Save each into a folder of its own.");
  // Untied, a rule with one end keeps a second unit that edits nothing.
  const used = config.tied_weights ? [0] : [config.prefix_positions > 0 ? 0 : -1, config.suffix_positions > 0 ? 1 : -1];
  const chosen = [...units.values()].filter(({ unit }) => used.includes(unit));
  const layers = new Set(chosen.map(({ layer }) => layer)).size;
  if (chosen.length !== layers * used.filter((unit) => unit >= 0).length)
    throw new UserError(`${name} lacks the weights of some layers' units.`, "The adapter is incomplete.");
  return chosen.sort((a, b) => a.unit - b.unit || a.layer - b.layer);
}
