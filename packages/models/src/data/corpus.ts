import { FmoeError } from '@fmoe/torch';
import type { TokenStream } from './tokens.js';
import type { Vocabulary } from './vocabulary.js';

/** The parts of a corpus. */
export type SplitName = 'train' | 'valid' | 'test';

/** The names of the parts, in order. */
export const splitNames: readonly SplitName[] = ['train', 'valid', 'test'];

/** A corpus in memory: one ordered stream of token ids for each part. */
export interface Corpus {
  readonly vocabulary: Vocabulary;
  readonly splits: Readonly<Record<SplitName, TokenStream>>;
}

/** Checks that every part has at least two tokens, one to read and one to predict. */
export function checkedCorpus(corpus: Corpus, source: string): Corpus {
  for (const name of splitNames) {
    const { length } = corpus.splits[name];
    if (length < 2) {
      throw new FmoeError(
        'ERR_FILE',
        `${source}: the ${name} part has ${length} ${corpus.vocabulary.unit}s, at least 2 are needed.`,
      );
    }
  }
  return corpus;
}
