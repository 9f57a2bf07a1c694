import type { BaseGate, ExpertSource, GateSource } from '@fmoe/layers';
import { FmoeError } from '@fmoe/torch';
import type { ResolvedConfig } from '../config/index.js';
import { findModule } from './find-module.js';
import { isPluginName, splitPluginName } from './plugin-name.js';

/** Gate and expert of a configuration that come from elsewhere. */
export interface MoEPlugins {
  gate?: Exclude<GateSource, BaseGate>;
  expert?: ExpertSource;
}

/**
 * Imports what a configuration names of other packages: `model.moe.gate` and `model.moe.expert` of the form `package#export`.
 *
 * @param folder where packages are looked for, from here upwards; the current one when left out
 * @throws FmoeError ERR_CONFIG when there is no such package, it does not load, or has no such export
 */
export async function loadPlugins(
  config: ResolvedConfig['model'],
  folder = process.cwd(),
): Promise<MoEPlugins> {
  const { gate, expert } = config.moe ?? {};
  return {
    ...(gate !== undefined && isPluginName(gate) && { gate: (await load('gate', gate, folder)) as never }),
    ...(expert !== undefined && { expert: (await load('expert', expert, folder)) as ExpertSource }),
  };
}

async function load(setting: string, name: string, folder: string): Promise<unknown> {
  const fail = (problem: string, cause?: unknown): never => {
    throw new FmoeError('ERR_CONFIG', `model.moe.${setting}: ${problem}`, { argument: setting, cause });
  };
  const { module, exported } = splitPluginName(name);
  let loaded: Record<string, unknown>;
  try {
    // Without a package there, one beside this package may have it.
    loaded = (await import(/* @vite-ignore */ findModule(module, folder) ?? module)) as Record<
      string,
      unknown
    >;
  } catch (cause) {
    if (FmoeError.isInstance(cause)) throw cause;
    return fail(`${module} does not load: ${(cause as Error).message}`, cause);
  }
  if (typeof loaded[exported] === 'function') return loaded[exported];
  const names = Object.keys(loaded).filter((key) => typeof loaded[key] === 'function');
  return fail(`${module} exports no class or function ${exported}; it has ${names.join(', ') || 'none'}.`);
}
