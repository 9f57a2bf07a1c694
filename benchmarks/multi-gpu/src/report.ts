import type { BandwidthRow } from './bandwidth.js';
import type { LayerRow } from './layer-scaling.js';

/** Steps of training with W ranks. */
export interface TrainingRow {
  ranks: number;
  milliseconds: number;
  /** Of all ranks. */
  tokensPerSecond: number;
  efficiencyAgainstOneRank?: number;
  parameters: number;
  peakMiB?: number;
}

/** What main.ts writes. */
export interface Report {
  date: string;
  machine: Record<string, unknown>;
  versions: Record<string, string>;
  backend: string;
  /** Of one GPU, in one direction. */
  linkPeakGigabytesPerSecond?: number;
  /** By part. */
  settings: Record<string, unknown>;
  layer: LayerRow[];
  bandwidth: BandwidthRow[];
  training: TrainingRow[];
  failed: { part: string; error: string }[];
  /** By part and number of ranks. */
  seconds: Record<string, number>;
}
