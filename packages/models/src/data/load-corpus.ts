import { type ByteCorpusOptions, loadByteCorpus } from './byte-corpus.js';
import type { Corpus } from './corpus.js';
import { loadTextCorpus, type TextFile, type TextFiles } from './text-corpus.js';
import { loadWordCorpus } from './word-corpus.js';

/** Which corpus to load: the format and where the user's own files lie. */
export type CorpusOptions =
  | ({ kind: 'text' } & TextFiles)
  | ({ kind: 'text-file' } & TextFile)
  | ({ kind: 'enwik8' | 'text8' } & ByteCorpusOptions)
  | { kind: 'wikitext-103'; path: string };

/**
 * Loads a corpus into memory.
 *
 * @throws FmoeError ERR_FILE when a file is missing, unreadable, empty, too short or in another format
 */
export function loadCorpus(options: CorpusOptions): Corpus {
  switch (options.kind) {
    case 'text':
    case 'text-file':
      return loadTextCorpus(options);
    case 'enwik8':
    case 'text8':
      return loadByteCorpus(options.kind, options);
    case 'wikitext-103':
      return loadWordCorpus(options.path);
  }
}
