export { evenRows, Placement } from './placement.js';
export { allGatherRows, type GatherGradient, reduceScatterRows, sliceRows } from './rows.js';
export { TokenExchange } from './token-exchange.js';
