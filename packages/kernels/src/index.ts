/**
 * Mixture-of-Experts operators: the steps of a layer, for people who write their own. Each has its derivative (of any
 * order), is deterministic, and reads nothing back from the device.
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
export { combine } from './combine.js';
export { dispatch } from './dispatch.js';
export { groupedLinear } from './grouped-linear.js';
export { loadKernels } from './load.js';
export { type RoutePlan, routePlan } from './route-plan.js';
