export { type CollectOptions, collectBalanceLoss, squaredVariation } from './balance-loss.js';
export { type BalanceMetrics, balanceMetrics } from './balance-metrics.js';
export { LoadStatistics, readExpertLoad } from './load-statistics.js';
export { type LayerBalance, readBalance } from './read-balance.js';
