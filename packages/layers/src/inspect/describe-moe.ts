/** Shape letters: D model width, E experts, N experts and null experts, K top-k, H hidden width. */
import { nn } from '@fmoe/torch';
import { ExpertMLP } from '../experts/expert-mlp.js';
import { FMoE } from '../fmoe.js';
import { MoELayer } from '../moe-layer.js';
import { type RowCost, rowCost } from './row-cost.js';
import { formatTable } from './table.js';

/** One MoE layer of a model. Costs are null where an expert's are not known, see {@link rowCost}. */
export interface MoELayerDescription {
  /** Its path in the model. */
  name: string;
  /** The gate's class. */
  gate: string;
  /** The experts' class, or classes. */
  expert: string;
  /** E, without null experts. */
  numExpert: number;
  topK: number;
  /** Whether its experts run as one fused operator. */
  fused: boolean;
  /** All parameters: gate, experts, shared expert. */
  totalParameters: number;
  /** Those that a token uses: gate, shared expert, and K experts of average size. */
  activeParameters: number;
  /** Operations of matrix products for one token, forward: gate, K experts, shared expert. The backward pass takes twice that. */
  flopsPerToken: number | null;
  /** Bytes that a forward pass keeps of one token for the backward pass on its way through the experts and back. */
  savedBytesPerToken: number | null;
}

/** The MoE layers of a model; `toString()` is a table of them. */
export interface MoEDescription {
  layers: MoELayerDescription[];
  toString(): string;
}

/**
 * What the MoE layers of a model are and cost. Nothing is run.
 *
 * @example
 * console.log(String(describeMoE(model)));
 */
export function describeMoE(model: nn.Module): MoEDescription {
  const layers: MoELayerDescription[] = [];
  for (const [name, module] of model.namedModules()) {
    if (module instanceof MoELayer) layers.push(describeLayer(name || '(model)', module as MoELayer));
  }
  return { layers, toString: () => formatTable(layers) };
}

function describeLayer(name: string, layer: MoELayer): MoELayerDescription {
  const { numExpert, topK, gate, experts, shared_experts: shared } = layer;
  const chosen = Math.min(topK, numExpert);
  const parts = experts instanceof nn.ModuleList ? [...experts] : [experts];
  const always = countOf(gate) + (shared ? countOf(shared) : 0);
  return {
    name,
    gate: gate.constructor.name,
    expert: [...new Set(parts.map((part) => part.constructor.name))].join(', '),
    numExpert,
    topK,
    fused: isFused(layer),
    totalParameters: always + countOf(experts),
    activeParameters: always + (countOf(experts) * chosen) / numExpert,
    ...costsOf(layer, parts, chosen),
  };
}

function costsOf(
  layer: MoELayer,
  parts: readonly nn.Module[],
  chosen: number,
): Pick<MoELayerDescription, 'flopsPerToken' | 'savedBytesPerToken'> {
  const { dModel, topK, shared_experts: shared } = layer;
  const costs = parts.map(rowCost);
  const sharedCost = shared ? rowCost(shared) : { flops: 0, savedNumbers: 0 };
  if (costs.includes(null) || sharedCost === null) return { flopsPerToken: null, savedBytesPerToken: null };
  const mean = (pick: (cost: RowCost) => number) =>
    (costs as RowCost[]).reduce((sum, cost) => sum + pick(cost), 0) / costs.length;
  const router = layer.gate
    .parameters()
    .reduce((sum, { shape }) => sum + (shape.length === 2 ? size(shape) : 0), 0);
  const dtype = layer.parameters().at(-1)?.dtype ?? 'float32';
  const bytes = dtype === 'float64' ? 8 : dtype === 'float32' ? 4 : 2;
  // Gates score in float32 at least; the plan has two int64 numbers a slot.
  const slots = topK * (Math.max(bytes, 4) + 16);
  const rows = isFused(layer)
    ? dModel + chosen * (layer.experts as ExpertMLP).preActivationWidth
    : chosen * (2 * dModel + mean((cost) => cost.savedNumbers));
  return {
    flopsPerToken: 2 * router + chosen * mean((cost) => cost.flops) + sharedCost.flops,
    savedBytesPerToken: bytes * (rows + (shared ? sharedCost.savedNumbers : 0)) + slots,
  };
}

function isFused(layer: MoELayer): boolean {
  return layer instanceof FMoE && layer.experts instanceof ExpertMLP && layer.isFused;
}

function countOf(module: nn.Module): number {
  return module.parameters().reduce((sum, { shape }) => sum + size(shape), 0);
}

function size(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}
