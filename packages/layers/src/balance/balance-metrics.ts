/**
 * How uneven counts per expert are, by FastMoE's names: `coefficient-variation` is their standard deviation (unbiased) over
 * their mean, `Lmax-over-Lmean` the largest over the mean, `Lmax-over-Lmin` (largest + 1) / (smallest + 1). An even load has
 * 0, 1 and 1; so has no load at all.
 */
export interface BalanceMetrics {
  'coefficient-variation': number;
  'Lmax-over-Lmin': number;
  'Lmax-over-Lmean': number;
}

/** The {@link BalanceMetrics} of counts per expert, at least one. */
export function balanceMetrics(counts: readonly number[]): BalanceMetrics {
  const largest = Math.max(...counts);
  const smallest = Math.min(...counts);
  const mean = counts.reduce((a, b) => a + b, 0) / counts.length;
  const squares = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0);
  const deviation = counts.length === 1 ? 0 : Math.sqrt(squares / (counts.length - 1));
  return {
    'coefficient-variation': mean === 0 ? 0 : deviation / mean,
    'Lmax-over-Lmin': (largest + 1) / (smallest + 1),
    'Lmax-over-Lmean': mean === 0 ? 1 : largest / mean,
  };
}
