import type { ProcessGroup } from '@fmoe/comm';
import { FmoeError } from '@fmoe/torch';
import { type GateName, type MoEConfig, TransformerXL } from '../transformer-xl/index.js';
import type { ResolvedConfig } from './config/index.js';
import type { LanguageModel } from './language-model.js';
import type { MoEPlugins } from './plugins/index.js';

/**
 * The model of a configuration, with initial weights drawn from the default generator.
 *
 * @param vocabularySize number of different tokens
 * @param plugins what the configuration names of other packages, from `loadPlugins`
 * @param moeGroup ranks over which the experts are spread; this process has all of them without it
 * @throws FmoeError ERR_CONFIG when settings do not go together, or a plug-in was not loaded
 */
export function buildModel(
  config: ResolvedConfig['model'],
  vocabularySize: number,
  plugins: MoEPlugins = {},
  moeGroup: ProcessGroup | null = null,
): LanguageModel {
  const { kind: _, moe, ...options } = config;
  return new TransformerXL({
    nToken: vocabularySize,
    ...withoutUndefined(options),
    moe: moe === undefined ? null : { ...withPlugins(moe, plugins), moeGroup },
  });
}

/** The dtype of the parameters of a run. */
export function parameterType({ training }: ResolvedConfig): 'float32' | 'float64' {
  return training.precision === 'float64' ? 'float64' : 'float32';
}

function withPlugins(moe: NonNullable<ResolvedConfig['model']['moe']>, plugins: MoEPlugins): MoEConfig {
  const { gate, expert, ...options } = moe;
  if (expert !== undefined && plugins.expert === undefined) {
    throw new FmoeError('ERR_CONFIG', `the expert ${expert} was not loaded: pass what loadPlugins gives.`, {
      op: 'buildModel',
      argument: 'plugins',
    });
  }
  return { ...options, gate: plugins.gate ?? (gate as GateName), expert: plugins.expert ?? null };
}

type Defined<T> = { [Key in keyof T]: Exclude<T[Key], undefined> };

/** Leaves out what is undefined, which exact optional properties do not accept. */
function withoutUndefined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as Defined<T>;
}
