export { balanceLoss, type CollectOptions, collectBalanceLoss, squaredVariation } from './balance-loss.js';
export { LoadStatistics, readExpertLoad } from './load-statistics.js';
