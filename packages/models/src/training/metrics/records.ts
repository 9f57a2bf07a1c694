import { balanceMetrics } from '@fmoe/layers';
import type { SplitName } from '../../data/corpus.js';
import type { TokenUnit } from '../../data/vocabulary.js';

/** Written once when a run starts or goes on. */
export interface StartRecord {
  kind: 'start';
  /** Steps done before; 0 for a new run. */
  step: number;
  /** Seconds spent in them. */
  seconds: number;
  /** Steps of the whole run. */
  steps: number;
  name: string;
  unit: TokenUnit;
  /** Trainable numbers of the model. */
  parameters: number;
  device: string;
  /** The resolved configuration. */
  config: unknown;
}

/** Averages over the steps since the last record. */
export interface TrainRecord {
  kind: 'train';
  step: number;
  /** Seconds spent in training steps since the run began, without evaluation and checkpoints. */
  seconds: number;
  /** Mean cross-entropy per token, nats. */
  loss: number;
  /** Mean balance loss before its weight; absent where the model has none. */
  balanceLoss?: number;
  learningRate: number;
  /** Mean norm of the gradient before clipping. */
  gradientNorm: number;
  tokensPerSecond: number;
  /** Rows that each expert of each MoE layer received, `[layer][expert]`; empty for a dense model. */
  expertLoad: number[][];
  /** Share of each MoE layer's slots that went to no expert; null where it is not counted. */
  droppedShare?: (number | null)[];
  /** Mean entropy of each layer's router, nats; null where its gate has no distribution over the experts. */
  routerEntropy?: (number | null)[];
}

/** Loss on a held-out part. */
export interface EvaluationRecord {
  kind: 'evaluation';
  step: number;
  /** As in {@link TrainRecord}. */
  seconds: number;
  split: SplitName;
  /** Mean cross-entropy per token, nats. */
  loss: number;
  /** Tokens that were predicted. */
  tokens: number;
}

/** A text, for example a sample of the model. */
export interface TextRecord {
  kind: 'text';
  step: number;
  tag: string;
  text: string;
}

/** What a trainer reports. */
export type MetricRecord = StartRecord | TrainRecord | EvaluationRecord | TextRecord;

/** Receives what a trainer reports, in order. */
export interface MetricSink {
  write(record: MetricRecord): void;
  /** Called once at the end, whether the run finished, stopped or failed. */
  close(): void;
}

/** Loss in nats a token as bits a token: bits per character or byte. */
export function bitsPerToken(nats: number): number {
  return nats / Math.LN2;
}

/** The figure by which a loss of this unit is quoted. */
export function quotedLoss(nats: number, unit: TokenUnit): { name: string; short: string; value: number } {
  if (unit === 'word') return { name: 'perplexity', short: 'ppl', value: Math.exp(nats) };
  return { name: `bits per ${unit}`, short: unit === 'byte' ? 'bpb' : 'bpc', value: bitsPerToken(nats) };
}

/**
 * How uneven the experts of a layer are loaded: the largest load divided by the mean, 1 when even.
 * 0 when nothing was routed.
 */
export function imbalance(load: readonly number[]): number {
  const total = load.reduce((sum, rows) => sum + rows, 0);
  return total === 0 ? 0 : (Math.max(...load) * load.length) / total;
}

/** Standard deviation of the loads of a layer's experts (unbiased), divided by their mean; 0 when even or nothing was routed. */
export function coefficientOfVariation(load: readonly number[]): number {
  return load.length === 0 ? 0 : balanceMetrics(load)['coefficient-variation'];
}

/** The largest {@link imbalance} of all layers; `undefined` for a dense model. */
export function worstImbalance(loads: readonly (readonly number[])[]): number | undefined {
  return loads.length === 0 ? undefined : Math.max(...loads.map(imbalance));
}
