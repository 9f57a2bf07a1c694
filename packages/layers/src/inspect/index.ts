export { describeMoE, type MoEDescription, type MoELayerDescription } from './describe-moe.js';
export { type RowCost, rowCost } from './row-cost.js';
