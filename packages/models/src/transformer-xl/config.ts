import { FmoeError } from '@fmoe/torch';
import { type MoEConfig, resolveMoEConfig } from './moe-config.js';

/** What a Transformer-XL is made from. */
export interface TransformerXLOptions {
  /** Size of the vocabulary. */
  nToken: number;
  nLayer: number;
  nHead: number;
  /** Width of the residual stream. */
  dModel: number;
  /** Width of a head. Default dModel / nHead. */
  dHead?: number;
  /** Width between the two linear layers of the feed-forward; with experts, of each expert. */
  dInner: number;
  /** Probability of dropping an activation. Default 0. */
  dropout?: number;
  /** Probability of dropping an attention weight. Default 0. */
  dropatt?: number;
  /** Normalise before attention and feed-forward instead of after their residual connections. Default false. */
  preLnorm?: boolean;
  /** Positions that are remembered from segment to segment. Default 0. */
  memLen?: number;
  /** Positions at the end of a segment that come again in the next one, and so stay out of the memory. Default 0. */
  extLen?: number;
  /** Let every position see exactly memLen positions, itself included, once so many are there. Default false. */
  sameLength?: boolean;
  /** Distances above this count as this; -1 for no limit. Default -1. */
  clampLen?: number;
  /** Share one matrix between the embedding and the output layer. Default true. */
  tieWeight?: boolean;
  /** Standard deviation of the initial weights. Default 0.02, which suits a dModel of 512 and more. */
  initStd?: number;
  /** A Mixture-of-Experts feed-forward in every layer; null or left out for a dense one. */
  moe?: MoEConfig | null;
}

/** {@link TransformerXLOptions} with every value filled in. */
export interface TransformerXLConfig extends Required<Omit<TransformerXLOptions, 'moe'>> {
  moe: Required<MoEConfig> | null;
}

const sizes = ['nToken', 'nLayer', 'nHead', 'dModel', 'dHead', 'dInner'] as const;
const lengths = ['memLen', 'extLen'] as const;
const probabilities = ['dropout', 'dropatt'] as const;
const switches = ['preLnorm', 'sameLength', 'tieWeight'] as const;
const known = new Set<string>([
  ...sizes,
  ...lengths,
  ...probabilities,
  ...switches,
  'clampLen',
  'initStd',
  'moe',
]);

/**
 * Fills in the defaults and checks all values.
 *
 * @throws FmoeError `ERR_CONFIG` naming the setting that is unknown, missing, out of its range, or at odds with another.
 */
export function resolveTransformerXLConfig(options: TransformerXLOptions): TransformerXLConfig {
  for (const key of Object.keys(options)) {
    if (!known.has(key))
      throw invalid(key, `is no setting of Transformer-XL; known are ${[...known].join(', ')}`);
  }
  const config: TransformerXLConfig = {
    dHead: Math.floor(options.dModel / options.nHead),
    dropout: 0,
    dropatt: 0,
    preLnorm: false,
    memLen: 0,
    extLen: 0,
    sameLength: false,
    clampLen: -1,
    tieWeight: true,
    initStd: 0.02,
    ...definedEntries(options),
    moe: options.moe ? resolveMoEConfig(definedEntries(options.moe), invalid) : null,
  };
  checkValues(config);
  return config;
}

function checkValues(config: TransformerXLConfig): void {
  for (const key of sizes) {
    if (!isInteger(config[key], 1))
      throw invalid(key, `must be a positive integer, got ${String(config[key])}`);
  }
  for (const key of lengths) {
    if (!isInteger(config[key], 0))
      throw invalid(key, `must be a non-negative integer, got ${String(config[key])}`);
  }
  for (const key of probabilities) {
    const value: unknown = config[key];
    if (typeof value !== 'number' || !(value >= 0 && value < 1)) {
      throw invalid(key, `is a probability from 0 to below 1, got ${String(value)}`);
    }
  }
  for (const key of switches) {
    if (typeof config[key] !== 'boolean')
      throw invalid(key, `must be true or false, got ${String(config[key])}`);
  }
  if (config.clampLen !== -1 && !isInteger(config.clampLen, 1)) {
    throw invalid(
      'clampLen',
      `must be a positive integer, or -1 for no limit, got ${String(config.clampLen)}`,
    );
  }
  if (!(Number.isFinite(config.initStd) && config.initStd > 0)) {
    throw invalid('initStd', `must be a positive number, got ${String(config.initStd)}`);
  }
  if (config.dModel % 2 !== 0) {
    throw invalid(
      'dModel',
      `must be even, since half of a position is sines and half cosines, got ${config.dModel}`,
    );
  }
  checkLengths(config.sameLength, config.memLen);
}

/** `sameLength` means "as far back as the memory is long". */
export function checkLengths(sameLength: boolean, memLen: number): void {
  if (sameLength && memLen === 0) throw invalid('sameLength', 'needs a memory: set memLen to at least 1');
}

function isInteger(value: unknown, least: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least;
}

/** A setting that is present but undefined counts as left out. */
function definedEntries<Settings extends object>(settings: Settings): Settings {
  return Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined)) as Settings;
}

function invalid(key: string, problem: string): FmoeError {
  return new FmoeError('ERR_CONFIG', `Transformer-XL: ${key} ${problem}.`, {
    op: 'TransformerXL',
    argument: key,
  });
}
