/** A histogram as TensorBoard stores it: `buckets[i]` counts the values up to and with `limits[i]`. */
export interface Histogram {
  min: number;
  max: number;
  count: number;
  sum: number;
  sumOfSquares: number;
  limits: number[];
  buckets: number[];
}

/**
 * Counts values in `bins` buckets of equal width between the smallest and the largest.
 *
 * @param values finite numbers, at least one
 */
export function histogramOf(values: readonly number[], bins = 30): Histogram {
  const min = values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
  const max = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  const width = (max - min) / bins;
  const count = width > 0 ? bins : 1;
  const limits = Array.from({ length: count }, (_, i) => (i === count - 1 ? max : min + width * (i + 1)));
  const buckets = new Array<number>(count).fill(0);
  let sum = 0;
  let sumOfSquares = 0;
  for (const value of values) {
    const above = width > 0 ? Math.ceil((value - min) / width) - 1 : 0;
    buckets[Math.min(count - 1, Math.max(0, above))]! += 1;
    sum += value;
    sumOfSquares += value * value;
  }
  return { min, max, count: values.length, sum, sumOfSquares, limits, buckets };
}

/** A histogram whose bucket `i` holds `counts[i]` values `i`: the load of each expert of a layer. */
export function histogramOfCounts(counts: readonly number[]): Histogram {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return {
    min: 0,
    max: counts.length - 1,
    count: total,
    sum: counts.reduce((sum, count, value) => sum + count * value, 0),
    sumOfSquares: counts.reduce((sum, count, value) => sum + count * value * value, 0),
    limits: counts.map((_, value) => value + 0.5),
    buckets: [...counts],
  };
}
