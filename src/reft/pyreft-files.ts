/** The folders that pyreft's ReftModel.save writes, and EasySteer's copy of it: config.json, and one torch file an edit. */

import { z } from "zod";
import { UserError } from "../errors.js";
import { parseJsonObject } from "../files/checkpoint.js";
import { decodeTorch, encodeTorch, type TensorToSave, type TorchTensor } from "../files/torch-file.js";
import { type AdapterConfig, parseAdapterConfig } from "./adapter.js";
import type { EditDType } from "./intervention.js";
import { guessedClass, layoutOf, pyreftState, pyreftStateBytes } from "./layouts.js";
import type { FolderReader, PlainAdapter, PlainEdit, Said, Written } from "./plain-adapter.js";
import { keysOf, presentKey, siteOf, unitOf } from "./pyvene-keys.js";

export const pyreftConfigFile = "config.json";

/** A representation's fields in pyvene's order; before July 2024 there was no latent_dim, before February 2024 fewer still. */
const fields = [
  "layer component unit max_number_of_units low_rank_dimension intervention_type intervention subspace_partition",
  "group_key intervention_link_key moe_key source_representation hidden_source_representation latent_dim",
].flatMap((line) => line.split(" "));

const representation = z.preprocess(
  (value) =>
    Array.isArray(value) && (value.length === fields.length || value.length === fields.length - 1)
      ? Object.fromEntries(value.map((item, i) => [fields[i], item]))
      : value,
  z.object({
    layer: z.number().int().min(0).max(1e6),
    component: z.string().max(200),
    unit: z.string().max(20).default("pos"),
    max_number_of_units: z.number().nullable().default(1),
    subspace_partition: z.unknown().optional(),
    intervention_link_key: z.union([z.string().max(200), z.number()]).nullish(),
  }),
);
const schema = z.object({
  representations: z.array(representation).min(1).max(10_000),
  intervention_types: z.array(z.string().max(500)),
});
type RepresentationField = z.infer<typeof representation>;

/** Whether a parsed config.json is of pyvene's kind, and not a model's. */
export function isPyreftConfig(config: Readonly<Record<string, unknown>>): boolean {
  return "intervention_types" in config;
}

/** The files of edits in a folder. */
export function editFiles(names: readonly string[]): string[] {
  return names.filter((name) => /^intkey_.+\.bin$/.test(name));
}

/**
 * Reads a folder of pyreft's or EasySteer's; a trainer's checkpoint, which has no config.json, by its files' names alone.
 *
 * @throws UserError where a file is missing, damaged, hostile, or not one of ReFT's edits
 */
export async function readPyreft(folder: FolderReader, said: Said): Promise<PlainAdapter> {
  const config = folder.names.includes(pyreftConfigFile)
    ? parseJsonObject(
        new TextDecoder().decode(await folder.read(pyreftConfigFile)),
        `${folder.name}/${pyreftConfigFile}`,
      )
    : undefined;
  const own = ownConfig(config, folder.name);
  const listed = config === undefined ? byFileName(folder, said) : byConfig(config, folder, said);
  const edits: PlainEdit[] = [];
  for (const [i, { file, kind, ...site }] of listed.entries()) {
    const state = decodeTorch(await folder.read(file), `${folder.name}/${file}`);
    const r = own?.representations[i];
    edits.push({
      ...site,
      ...layoutOf(kind ?? guessedClass(state, `${folder.name}/${file}`), state, `${folder.name}/${file}`),
      actFn: said.actFn ?? r?.actFn ?? "linear",
      dropout: said.dropout ?? r?.dropout ?? 0,
      dtype: said.dtype ?? r?.dtype ?? linearDType(state),
      heads: r?.heads,
    });
  }
  return {
    edits,
    base: own?.base.id,
    positions: own?.positions ?? undefined,
    shareWeights: own?.shareWeights ?? false,
    template: own?.template ?? undefined,
    own,
    assumed: [
      ...(config === undefined && said.intervention === undefined
        ? [
            `class ${[...new Set(edits.map((edit) => edit.intervention))].join(", ")}, by the tensors: there is no config.json`,
          ]
        : []),
      ...(own === undefined && said.actFn === undefined && edits.some(hasActivation)
        ? ["activation linear: pyreft does not save it"]
        : []),
      ...(own === undefined && edits.some((edit) => unitOf(edit.component) === "h.pos")
        ? ["all heads of head_ components: pyreft names them at each call"]
        : []),
    ],
  };
}

/** pyreft saves linear parts in the type that they are computed in. */
function linearDType(state: ReadonlyMap<string, TorchTensor>): EditDType {
  const linear = state.get("weight") ?? state.get("learned_source.weight");
  const known: Readonly<Partial<Record<TorchTensor["dtype"], EditDType>>> = { BF16: "bfloat16", F16: "float16" };
  return (linear && known[linear.dtype]) ?? "float32";
}

/** Cons- and LobiReFT have no linear part to activate. */
function hasActivation({ values }: PlainEdit): boolean {
  return values["learned_source.weight"] !== undefined;
}

/** What we keep in pyreft's config.json about an adapter of ours; pyreft passes it by. */
function ownConfig(config: Readonly<Record<string, unknown>> | undefined, name: string): AdapterConfig | undefined {
  if (config?.reft === undefined) return undefined;
  return parseAdapterConfig(JSON.stringify(config.reft), `${name}/${pyreftConfigFile}: reft`);
}

interface Listed {
  readonly layer: number;
  readonly component: string;
  readonly link: string | number | null;
  readonly file: string;
  /** undefined: by its tensors */
  readonly kind: string | undefined;
}

function byConfig(config: Readonly<Record<string, unknown>>, folder: FolderReader, said: Said): Listed[] {
  const name = `${folder.name}/${pyreftConfigFile}`;
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new UserError(
      `${name}: ${issue?.path.join(".")}: ${issue?.message}.`,
      "Is it the config.json that pyreft's ReftModel.save wrote?",
    );
  }
  const { representations, intervention_types: types } = parsed.data;
  if (types.length !== representations.length)
    throw new UserError(
      `${name} has ${representations.length} representations and ${types.length} intervention types.`,
      "The file is damaged; save the adapter again.",
    );
  const files = new Map(editFiles(folder.names).map((file) => [presentKey(file.slice(7, -4)), file]));
  const keys = keysOf(representations);
  return representations.map((r, i) => {
    checkRepresentation(r, name);
    const file = files.get(keys[i] as string);
    if (file === undefined)
      throw new UserError(
        `${folder.name} has no file of weights for ${keys[i]}.`,
        `It needs intkey_${keys[i]}.bin, in this or an older spelling of pyvene's; it has ${[...files.values()].slice(0, 3).join(", ") || "none"}.`,
      );
    const kind = said.intervention ?? className(types[i] as string);
    return { layer: r.layer, component: r.component, link: r.intervention_link_key ?? null, file, kind };
  });
}

/** "<class 'pyreft.interventions.LoreftIntervention'>": only the last part is the same wherever the class lies. */
function className(type: string): string {
  return /(\w+)(?:'>)?$/.exec(type)?.[1] ?? type;
}

function checkRepresentation(r: RepresentationField, name: string): void {
  const single = r.max_number_of_units === null || r.max_number_of_units === 1;
  const unit = unitOf(r.component);
  if (single && r.unit === unit && (r.subspace_partition ?? null) === null) return;
  throw new UserError(
    `${name}: the edit at ${JSON.stringify(r.component)} is of unit "${r.unit}", ${r.max_number_of_units} at a time${(r.subspace_partition ?? null) === null ? "" : ", with a subspace partition"}.`,
    `Only edits of single positions are converted: unit "${unit}", max_number_of_units 1.`,
  );
}

/** Without a config.json, the layer and component are in a file's name, and the class shows in its tensors. */
function byFileName(folder: FolderReader, said: Said): Listed[] {
  const nth = (file: string): number => Number(/#(\d+)\.bin$/.exec(file)?.[1] ?? 0);
  const listed = editFiles(folder.names).map((file) => {
    const site = siteOf(file.slice(7, -4));
    if (site === undefined)
      throw new UserError(
        `${folder.name} has no config.json, and ${JSON.stringify(file.slice(0, 120))} does not say its layer.`,
        "Take the folder that pyreft's ReftModel.save wrote.",
      );
    return { layer: site.layer, component: site.component, link: null, file, kind: said.intervention };
  });
  // As pyreft orders them: every layer's first edit before any layer's second.
  return listed.sort((a, b) => nth(a.file) - nth(b.file) || a.layer - b.layer || (a.component < b.component ? -1 : 1));
}

/** What is written cannot take more memory than what is read. */
const maxWritten = 1e9;

/** How a library keeps an edit. */
export interface EditWriter {
  /** The Python class, with its module. */
  type(edit: PlainEdit): string;
  state(edit: PlainEdit): Readonly<Record<string, TensorToSave>>;
}

/** The files of a folder that pyreft's ReftModel.load reads, and what is lost on the way. */
export function writePyreft(adapter: PlainAdapter): Written {
  const [first] = adapter.edits;
  const bytes = adapter.edits.reduce((sum, edit) => sum + pyreftStateBytes(edit), 0);
  if (bytes > maxWritten)
    throw new UserError(
      `pyreft keeps a ${first?.embedDim}×${first?.embedDim} matrix for each of these edits: ${adapter.edits.length} take ${(bytes / 1e9).toFixed(1)} GB.`,
      "Convert with --to easysteer, which keeps R itself.",
    );
  const files = editFolder(adapter, {
    // pyreft has subspaces in a notebook only; with all columns acting it is LoReFT.
    type: ({ intervention }) => `pyreft.interventions.${intervention.replace("Subloreft", "Loreft")}`,
    state: pyreftState,
  });
  return { files, lost: lostInPyreft(adapter) };
}

function lostInPyreft({ edits, positions }: PlainAdapter): string[] {
  const kinds = new Set(edits.map((edit) => edit.intervention));
  const unloadable = ["NoreftIntervention", "NodireftIntervention"].filter((kind) => kinds.has(kind));
  const activations = [...new Set(edits.map((edit) => edit.actFn))].filter((name) => name !== "linear");
  const heads = edits.flatMap((edit) => edit.heads ?? []);
  return [
    ...(kinds.has("SubloreftIntervention") ? ["subspaces: written as LoreftIntervention, all columns act"] : []),
    ...(heads.length === 0 ? [] : [`heads ${[...new Set(heads)].join(", ")}: name them in unit_locations too`]),
    ...(positions === undefined ? [] : [`positions ${positions}: give pyreft unit_locations at each call`]),
    ...activations.map((name) => `activation ${name}: pyreft loads the edit as linear`),
    ...["float32", "float16"]
      .filter((dtype) => edits.some((edit) => edit.dtype === dtype && needsPrecision(edit)))
      .map((dtype) => `precision: pyreft loads W and b as bfloat16 whatever the file holds; the file holds ${dtype}`),
    ...unloadable.map((kind) => `${kind}: pyreft saves, but cannot load it (KeyError 'add_bias')`),
  ];
}

/** Whether the linear parts are more than bfloat16 can hold: a float's lower half is not empty. */
function needsPrecision({ values }: PlainEdit): boolean {
  return Object.entries(values).some(([name, { data }]) => {
    const bits = new Uint32Array(data.buffer, data.byteOffset, data.length);
    return /\.(weight|bias)$/.test(name) && bits.some((b) => (b & 0xffff) !== 0);
  });
}

/** config.json and one torch file an edit. */
export function editFolder({ edits, own }: PlainAdapter, writer: EditWriter): Written["files"] {
  const keys = keysOf(edits);
  const config = {
    intervention_constant_sources: edits.map(() => true),
    intervention_dimensions: edits.map((edit) => edit.embedDim),
    intervention_types: edits.map((edit) => `<class '${writer.type(edit)}'>`),
    mode: "parallel",
    representations: edits.map(({ layer, component, rank, link }) => {
      const said: Readonly<Record<string, unknown>> = {
        layer,
        component,
        unit: unitOf(component),
        max_number_of_units: 1,
        low_rank_dimension: rank,
        intervention_link_key: link,
      };
      return fields.map((field) => said[field] ?? null);
    }),
    sorted_keys: keys,
    ...(own === undefined ? {} : { reft: own }),
  };
  const weights = edits.map((edit, i): [string, Uint8Array] => {
    const stem = `intkey_${keys[i]}`;
    return [`${stem}.bin`, encodeTorch(writer.state(edit), stem)];
  });
  return { [pyreftConfigFile]: `${JSON.stringify(config, null, 2)}\n`, ...Object.fromEntries(weights) };
}
