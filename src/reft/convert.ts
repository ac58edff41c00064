/** From any library's adapter to an adapter of ours on a model, and to theirs. */

import { UserError } from "../errors.js";
import { parseJsonObject } from "../files/checkpoint.js";
import type { CausalLM } from "../models/causal-lm.js";
import { configFile, weightsFile } from "./adapter.js";
import { hubConfigFile, readAdapterHub } from "./adapterhub-files.js";
import { editsOf, type Representation } from "./config.js";
import { interventionClass, interventions } from "./interventions.js";
import { type FolderReader, type PlainAdapter, type PlainEdit, plainAdapter, type Said } from "./plain-adapter.js";
import { type Positions, parsePositions, unitCount } from "./positions.js";
import { editFiles, isPyreftConfig, pyreftConfigFile, readPyreft } from "./pyreft-files.js";
import { ReftModel } from "./reft-model.js";

export type AdapterFormat = "reft" | "pyreft" | "adapterhub";

/**
 * Which library wrote a folder, by its files' names; EasySteer's are pyreft's. undefined: none that we know.
 */
export async function adapterFormat(folder: FolderReader): Promise<AdapterFormat | undefined> {
  if (folder.names.includes(configFile)) return "reft";
  if (folder.names.includes(hubConfigFile)) return "adapterhub";
  if (editFiles(folder.names).length > 0) return "pyreft";
  if (!folder.names.includes(pyreftConfigFile)) return undefined;
  const config = parseJsonObject(
    new TextDecoder().decode(await folder.read(pyreftConfigFile)),
    `${folder.name}/${pyreftConfigFile}`,
  );
  return isPyreftConfig(config) ? "pyreft" : undefined;
}

/**
 * Reads an adapter of ours, pyreft's, EasySteer's or AdapterHub's.
 *
 * @param said what the user knows and the files do not say; it goes before what they say
 * @throws UserError where the folder is none of these, or its files are incomplete, damaged or hostile
 */
export async function readAnyAdapter(folder: FolderReader, said: Said = {}): Promise<PlainAdapter> {
  const intervention = said.intervention === undefined ? {} : { intervention: ownName(said.intervention) };
  const known = { ...said, ...intervention };
  switch (await adapterFormat(folder)) {
    case "reft":
      return plainAdapter(
        { config: new TextDecoder().decode(await folder.read(configFile)), weights: await folder.read(weightsFile) },
        folder.name,
      );
    case "pyreft":
      return readPyreft(folder, known);
    case "adapterhub":
      return readAdapterHub(folder, known);
    case undefined:
      throw new UserError(
        `${folder.name} is no adapter: it has neither ${configFile}, nor intkey_….bin, nor ${hubConfigFile}.`,
        "Give a folder that reft, pyreft (ReftModel.save), EasySteer or AdapterHub's adapters wrote.",
      );
  }
}

/** "nodireft" as "NodireftIntervention" */
function ownName(name: string): string {
  const Class = interventionClass(name);
  return Object.entries(interventions).find(([, known]) => known === Class)?.[0] ?? name;
}

export interface Imported {
  readonly reft: ReftModel;
  /** What was taken for granted, for the user to check. */
  readonly assumed: readonly string[];
}

/**
 * Puts an adapter, of whichever library, on the model that it was trained on.
 *
 * @throws UserError where it does not fit the model, or its positions do not fit its edits
 */
export function adapterOnModel(adapter: PlainAdapter, model: CausalLM, said: Said = {}): Imported {
  const { positions, assumed } = positionsOf(adapter, said);
  const representations = adapter.edits.map(representationOf);
  const values = Object.fromEntries(
    editsOf(representations, model.config).flatMap(({ key, weightsKey }, i) => {
      const edit = adapter.edits[i] as PlainEdit;
      return key === weightsKey ? Object.entries(edit.values).map(([name, { data }]) => [`${key}.${name}`, data]) : [];
    }),
  );
  const reft = new ReftModel(model, { representations, positions }, { values });
  reft.template = adapter.template;
  return { reft, assumed: [...adapter.assumed, ...assumed] };
}

function representationOf(edit: PlainEdit): Representation {
  const {
    intervention,
    embedDim,
    rank: lowRankDimension,
    actFn,
    dropout,
    dtype,
    addBias,
    link,
    component,
    heads,
    layer,
  } = edit;
  const Class = interventionClass(intervention);
  const options = { embedDim, lowRankDimension, actFn, dropout, dtype, ...(addBias === null ? {} : { addBias }) };
  return {
    // A path says the layer itself, and pyvene leaves 0 beside it.
    ...(component.includes(".") ? {} : { layer }),
    component,
    ...(heads === undefined ? {} : { heads }),
    intervention: new Class(options),
    ...(link === null ? {} : { interventionLinkKey: link }),
  };
}

function positionsOf(adapter: PlainAdapter, said: Said): { positions: Positions; assumed: string[] } {
  const asked = said.positions ?? adapter.positions;
  const shareWeights = said.shareWeights ?? adapter.shareWeights;
  const positions = parsePositions(asked ?? "l1", { shareWeights });
  const doubled = hasTwins(adapter.edits);
  if (doubled && asked === undefined)
    throw new UserError(
      "the adapter has two edits a layer, which pyreft makes for the two ends of a prompt; its files do not say which tokens.",
      "Pass the positions that it was trained with, such as --positions f7+l7.",
    );
  if (unitCount(positions) === 2 && !doubled)
    throw new UserError(
      `the adapter has one edit a layer, but positions ${asked} without shared weights ask for two.`,
      "Add --share-weights, or name one end.",
    );
  return {
    positions,
    assumed: asked === undefined ? ["positions l1 (the last prompt token): the files do not say"] : [],
  };
}

/** Whether every site has exactly two edits of its own. */
function hasTwins(edits: readonly PlainEdit[]): boolean {
  const counts = new Map<string, number>();
  for (const { layer, component } of edits) {
    const site = `${layer} ${component}`;
    counts.set(site, (counts.get(site) ?? 0) + 1);
  }
  return [...counts.values()].every((n) => n === 2);
}
