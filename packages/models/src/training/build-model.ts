import { TransformerXL } from '../transformer-xl/index.js';
import type { ResolvedConfig } from './config/index.js';
import type { LanguageModel } from './language-model.js';

/**
 * The model of a configuration, with initial weights drawn from the default generator.
 *
 * @param vocabularySize number of different tokens
 * @throws FmoeError ERR_CONFIG when settings do not go together
 */
export function buildModel(config: ResolvedConfig['model'], vocabularySize: number): LanguageModel {
  const { kind: _, ...options } = config;
  return new TransformerXL({ nToken: vocabularySize, ...withoutUndefined(options) });
}

type Defined<T> = { [Key in keyof T]: Exclude<T[Key], undefined> };

/** Leaves out what is undefined, which exact optional properties do not accept. */
function withoutUndefined<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(Object.entries(value).filter(([, entry]) => entry !== undefined)) as Defined<T>;
}
