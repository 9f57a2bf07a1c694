import type { ProcessGroup } from '@fmoe/comm';
import {
  type BaseGate,
  BiasBalancedGate,
  DCGate,
  ExpertChoiceGate,
  type ExpertSource,
  FasterGate,
  type GateSource,
  GroupLimitedGate,
  GShardGate,
  makeGate,
  NaiveGate,
  NoisyGate,
  SwipeGate,
  SwitchGate,
  TokenRoundingGate,
  TopKGate,
  ZeroGate,
} from '@fmoe/layers';
import type { FmoeError } from '@fmoe/torch';

/**
 * The gates that a configuration can name; the first ones by FastMoE's names. What a gate needs besides the sizes is in
 * {@link MoEConfig.gateOptions}: `cluster` for `faster`, `numGroups` and `groupTopK` for `group-limited`.
 */
export const namedGates = {
  zero: ZeroGate,
  naive: NaiveGate,
  noisy: NoisyGate,
  gshard: GShardGate,
  dc: DCGate,
  switch: SwitchGate,
  swipe: SwipeGate,
  faster: FasterGate,
  topk: TopKGate,
  'bias-balanced': BiasBalancedGate,
  'group-limited': GroupLimitedGate,
  'expert-choice': ExpertChoiceGate,
  'token-rounding': TokenRoundingGate,
} satisfies Record<string, new (options: never) => BaseGate>;

/** A name of {@link namedGates}. */
export type GateName = keyof typeof namedGates;

/** The Mixture-of-Experts feed-forward of every layer. */
export interface MoEConfig {
  /** Number of experts per layer. */
  numExpert: number;
  /** Experts per token. Default 2. */
  topK?: number;
  /** How tokens choose: the name of a gate, or a gate's class or a function that makes one. Default `'naive'`. */
  gate?: GateName | Exclude<GateSource, BaseGate>;
  /** Further options of the gate's constructor, such as a capacity. */
  gateOptions?: Readonly<Record<string, unknown>>;
  /** An expert's class, or a function that makes one, in the place of the two-layer experts of inner width `dInner`. */
  expert?: ExpertSource | null;
  /** Ranks over which the experts are spread. Default null: all are here. */
  moeGroup?: ProcessGroup | null;
}

const known = ['numExpert', 'topK', 'gate', 'gateOptions', 'expert', 'moeGroup'];

/**
 * Fills in the defaults and checks all values.
 *
 * @param invalid makes the error of a setting and what is wrong with it
 */
export function resolveMoEConfig(
  options: MoEConfig,
  invalid: (key: string, problem: string) => FmoeError,
): Required<MoEConfig> {
  for (const key of Object.keys(options)) {
    if (!known.includes(key)) throw invalid(`moe.${key}`, `is unknown; known are ${known.join(', ')}`);
  }
  const { numExpert, topK = 2, gate = 'naive', gateOptions = {}, expert = null, moeGroup = null } = options;
  for (const [key, value] of [
    ['numExpert', numExpert],
    ['topK', topK],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw invalid(`moe.${key}`, `must be a positive integer, got ${String(value)}`);
    }
  }
  if (topK > numExpert) {
    throw invalid('moe.topK', `is ${topK}, but there are only ${numExpert} experts to choose from`);
  }
  if (typeof gate === 'string' ? !Object.hasOwn(namedGates, gate) : typeof gate !== 'function') {
    const names = Object.keys(namedGates).map((name) => `'${name}'`);
    throw invalid('moe.gate', `must be ${names.join(', ')}, a class or a function, got ${String(gate)}`);
  }
  if (typeof gateOptions !== 'object' || gateOptions === null) {
    throw invalid('moe.gateOptions', `must be an object, got ${String(gateOptions)}`);
  }
  if (expert !== null && typeof expert !== 'function') {
    throw invalid('moe.expert', `must be a class or a function, got ${String(expert)}`);
  }
  return { numExpert, topK, gate, gateOptions, expert, moeGroup };
}

/** The gate of a configuration, with its further options. */
export function gateSource({ gate, gateOptions, topK }: Required<MoEConfig>): GateSource {
  const source = typeof gate === 'string' ? (namedGates[gate] as Source) : gate;
  return (options) => {
    // The layer compares the sizes of what is made with its own.
    return makeGate('MoEConfig', source, { topK, ...options, ...gateOptions });
  };
}

type Source = Exclude<GateSource, BaseGate>;
