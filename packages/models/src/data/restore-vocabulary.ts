import { FmoeError } from '@fmoe/torch';
import { ByteVocabulary } from './byte-vocabulary.js';
import { CharacterVocabulary } from './character-vocabulary.js';
import type { Vocabulary } from './vocabulary.js';
import { WordVocabulary } from './word-vocabulary.js';

/**
 * The vocabulary that {@link Vocabulary.toJSON} wrote.
 *
 * @throws FmoeError ERR_FILE when the value is not a vocabulary
 */
export function restoreVocabulary(data: unknown): Vocabulary {
  const value = data as Partial<Record<string, unknown>> | null;
  if (value?.['kind'] === 'character' && isArrayOf(value['characters'], 'string')) {
    return new CharacterVocabulary(value['characters'] as string[]);
  }
  if (value?.['kind'] === 'byte' && isArrayOf(value['bytes'], 'number')) {
    return new ByteVocabulary(value['bytes'] as number[]);
  }
  if (value?.['kind'] === 'word' && isArrayOf(value['words'], 'string')) {
    return new WordVocabulary(value['words'] as string[]);
  }
  throw new FmoeError('ERR_FILE', 'The vocabulary of this run is not one that fmoe wrote.');
}

function isArrayOf(value: unknown, type: 'string' | 'number'): boolean {
  return Array.isArray(value) && value.every((entry) => typeof entry === type);
}
