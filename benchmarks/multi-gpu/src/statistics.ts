export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

export function mean(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
}

/** The largest number of each place: what a step took is what it took on the slowest rank. */
export function slowest(ofRanks: readonly (readonly number[])[]): number[] {
  return ofRanks[0]!.map((_, place) => Math.max(...ofRanks.map((numbers) => numbers[place]!)));
}

/** To so many significant digits, for files that people read. */
export function rounded(number: number, digits = 4): number {
  return Number(number.toPrecision(digits));
}
