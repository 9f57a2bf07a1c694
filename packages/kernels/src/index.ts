/**
 * Mixture-of-Experts operators: the steps of a layer, for people who write their own. Each is
 * deterministic and reads nothing back from the device; the steps have derivatives of any order, the fused `moeMlp` and
 * `topkGate` the first.
 *
 * ```ts
 * const plan = routePlan(topIdx, numExperts);
 * const rows = dispatch(x, plan.rowSlot, plan.slotRow);
 * const hidden = groupedLinear(rows, w1, b1, plan.offsets).gelu();
 * const y = combine(groupedLinear(hidden, w2, b2, plan.offsets), score, plan.slotRow);
 * ```
 *
 * @module
 */
export { assignPos, expertCount, limitByCapacity, pruneGateByCapacity } from './capacity.js';
export { combine } from './combine.js';
export { dispatch } from './dispatch.js';
export { groupedLinear } from './grouped-linear.js';
export { loadKernels } from './load.js';
export { balanceLoss, importanceLoss, loadLoss, zLoss } from './losses.js';
export { type MoeActivation, type MoeMlpWeights, moeMlp } from './moe-mlp.js';
export { type RoutePlan, routePlan } from './route-plan.js';
export { routerLogits } from './router-logits.js';
export { type ScoreFunction, type TopkGateOptions, type TopkGateResult, topkGate } from './topk-gate.js';
