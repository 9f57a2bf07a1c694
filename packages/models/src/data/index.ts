export { type ByteCorpusOptions, loadByteCorpus } from './byte-corpus.js';
export { ByteVocabulary } from './byte-vocabulary.js';
export { CharacterVocabulary, unknownCharacter } from './character-vocabulary.js';
export { type Corpus, type SplitName, splitNames } from './corpus.js';
export { type CorpusOptions, loadCorpus } from './load-corpus.js';
export {
  type Batch,
  type IteratorState,
  OrderedIterator,
  type OrderedIteratorOptions,
} from './ordered-iterator.js';
export { restoreVocabulary } from './restore-vocabulary.js';
export { loadTextCorpus, type TextFile, type TextFiles } from './text-corpus.js';
export type { TokenStream } from './tokens.js';
export type { TokenUnit, Vocabulary, VocabularyData } from './vocabulary.js';
export { loadWordCorpus } from './word-corpus.js';
export { WordVocabulary } from './word-vocabulary.js';
