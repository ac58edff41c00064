/** From the options of `reft train` to a model with edits. */

import type { FrozenModel } from "../models/frozen-model.js";
import { parseLayers } from "../reft/config.js";
import { interventionClass } from "../reft/interventions.js";
import { parsePositions, unitCount } from "../reft/positions.js";
import { getReftModel, type ReftModel } from "../reft/reft-model.js";
import { given } from "./flags.js";
import type { EditOptions } from "./train-options.js";

/** The layer that is edited where none is named: the middle one, where pyreft's examples put a single edit. */
export function middleLayer(model: FrozenModel): number {
  return Math.floor(model.config.layers / 2);
}

/** @throws UserError for a layer, component, edit, rank or positions that do not exist or do not fit the model */
export function buildEdit<M extends FrozenModel>(model: M, options: EditOptions, seed: number): ReftModel<M> {
  const positions = parsePositions(options.positions, { shareWeights: options.shareWeights });
  const layers = parseLayers(options.layers ?? middleLayer(model), model.config);
  const Intervention = interventionClass(options.intervention);
  const { component, rank, dropout, actFn, dtype, addBias, init } = options;
  // As in pyreft, an untied rule with two ends has an edit for each: all layers for the start, then all for the end.
  const representations = Array.from({ length: unitCount(positions) }, () => layers)
    .flat()
    .map((layer) => ({
      layer,
      component,
      intervention: new Intervention({
        embedDim: model.width(component),
        lowRankDimension: rank,
        dropout,
        actFn,
        dtype,
        init,
        ...given({ addBias }),
      }),
    }));
  return getReftModel(model, { representations, positions }, { seed });
}
