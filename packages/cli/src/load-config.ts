import { existsSync, readFileSync } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import * as training from '@fmoe/models/training';
import * as torch from '@fmoe/torch';
import { loadModule } from './load-module.js';

/**
 * Loads a configuration file: TypeScript or JavaScript with a default export, or JSON.
 *
 * @param file relative to the current folder
 * @param assignments `key=value` pairs that replace values of the file
 * @throws FmoeError ERR_CONFIG when the file is missing, does not load, or holds no valid configuration
 */
export async function loadConfig(
  file: string,
  assignments: readonly string[] = [],
): Promise<training.ResolvedConfig> {
  const path = resolve(file);
  if (!existsSync(path)) throw new torch.FmoeError('ERR_CONFIG', `There is no configuration file ${path}.`);
  const value = extname(path) === '.json' ? readJson(path) : await importDefault(path);
  return training.resolveConfig(training.applyOverrides(value, assignments), { folder: dirname(path) });
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw new torch.FmoeError('ERR_CONFIG', `${path} is not valid JSON: ${(cause as Error).message}`, {
      cause,
    });
  }
}

async function importDefault(path: string): Promise<unknown> {
  let loaded: unknown;
  try {
    loaded = await loadModule(path, { default: true });
  } catch (cause) {
    if (torch.FmoeError.isInstance(cause)) throw cause;
    throw new torch.FmoeError(
      'ERR_CONFIG',
      `${path} does not load: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
  if (typeof loaded === 'object' && loaded !== null) return loaded;
  throw new torch.FmoeError(
    'ERR_CONFIG',
    `${path} has no default export that is a configuration. Write: export default defineConfig({ ... })`,
  );
}
