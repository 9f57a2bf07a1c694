import { checkOptions, nn } from '@fmoe/torch';
import { type BalanceMetrics, balanceMetrics } from './balance-metrics.js';
import { LoadStatistics } from './load-statistics.js';

/** How balanced one MoE layer was since the last reset. */
export interface LayerBalance extends BalanceMetrics {
  /** Path of the layer in the model, `''` for the model itself. */
  layer: string;
  /** Slots of each expert. */
  counts: number[];
  /** The share of the tokens' slots that went to no expert, or null where the layer does not count them. */
  droppedShare: number | null;
  /**
   * Mean entropy of the router's distribution over the experts in nats, from 0 (sure) to ln N (undecided), or null where the
   * gate has no such distribution.
   */
  routerEntropy: number | null;
}

/**
 * The balance of every MoE layer of a model, in the order of `model.modules()`. The numbers were kept on the layers' devices
 * in training mode; only this reads them, which on a GPU waits for the device.
 */
export function readBalance(model: nn.Module, options: { reset?: boolean } = {}): LayerBalance[] {
  checkOptions('readBalance', options, ['reset']);
  const layers: LayerBalance[] = [];
  for (const [layer, module] of model.namedModules()) {
    if (!('load' in module) || !(module.load instanceof LoadStatistics)) continue;
    const { load } = module;
    const gate = 'gate' in module ? module.gate : undefined;
    const counts = load.read();
    layers.push({
      layer,
      counts,
      ...balanceMetrics(counts),
      droppedShare: load.readDroppedShare(),
      routerEntropy: observesEntropy(gate) ? gate.readEntropy(options) : null,
    });
    if (options.reset) load.reset();
  }
  return layers;
}

/** A gate is known by what it can do, so that one of another copy of this package counts as well. */
function observesEntropy(
  gate: unknown,
): gate is { readEntropy(options: { reset?: boolean }): number | null } {
  return gate instanceof nn.Module && 'readEntropy' in gate && typeof gate.readEntropy === 'function';
}
