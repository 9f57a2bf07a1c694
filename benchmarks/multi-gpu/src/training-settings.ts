/** Shape letters: T segment length, B batch columns of a rank, E experts a rank. */

export interface TrainingSettings {
  device: 'cpu' | 'cuda';
  precision: 'float32' | 'bfloat16-autocast';
  nLayer: number;
  nHead: number;
  dModel: number;
  /** Of one expert. */
  dInner: number;
  /** E */
  expertsPerRank: number;
  topK: number;
  /** B */
  columnsPerRank: number;
  /** T, and the length of the memory. */
  tgtLen: number;
  /** Steps before the first that counts, and steps of a round. */
  warmup: number;
  steps: number;
  rounds: number;
}

export function trainingSettings(device: 'cpu' | 'cuda', quick: boolean): TrainingSettings {
  const precision = device === 'cuda' || quick ? 'bfloat16-autocast' : 'float32';
  const common = { device, precision, expertsPerRank: 4, topK: 2 } as const;
  if (quick) {
    const tiny = { nLayer: 2, nHead: 2, dModel: 32, dInner: 64, columnsPerRank: 2, tgtLen: 16 };
    return { ...common, ...tiny, warmup: 1, steps: 2, rounds: 2 };
  }
  const size = { nLayer: 6, nHead: 16, dModel: 1024, dInner: 4096, columnsPerRank: 16, tgtLen: 512 };
  return { ...common, ...size, warmup: 5, steps: 4, rounds: 7 };
}
