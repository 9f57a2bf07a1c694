import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import { type Corpus, checkedCorpus, type SplitName, splitNames } from './corpus.js';
import { kindOfPath, readLines } from './read-file.js';
import { encodeTokens, TokenBuilder, type TokenStream } from './tokens.js';
import { byFrequency } from './vocabulary.js';
import { endOfLine, splitWords, WordVocabulary } from './word-vocabulary.js';

/**
 * wikitext-103 (or another corpus in its format): words between spaces, `<eos>` after every line, empty ones
 * too. Id 0 is `<eos>`, then the words of the training part in order of frequency, ties in order of first
 * appearance, as Transformer-XL numbers them.
 *
 * @param folder a folder with `wiki.train.tokens`, `wiki.valid.tokens` and `wiki.test.tokens`, or with
 *   `train.txt`, `valid.txt` and `test.txt`
 * @throws FmoeError ERR_FILE when a file is missing, unreadable or empty, or when a held-out part has a word
 *   that the training part lacks and there is no `<unk>`
 */
export function loadWordCorpus(folder: string): Corpus {
  const files = findFiles(folder);
  const training = readWords(files.train);
  const order = byFrequency(training.counts);
  const words = order.map((symbol) => training.words[symbol]!).filter((word) => word !== endOfLine);
  const vocabulary = new WordVocabulary([endOfLine, ...words]);

  const encode = (file: string, read: WordStream): TokenStream =>
    encodeTokens(read.symbols, vocabulary.size, (symbol) => idIn(vocabulary, read.words[symbol]!, file));
  const splits = {
    train: encode(files.train, training),
    valid: encode(files.valid, readWords(files.valid)),
    test: encode(files.test, readWords(files.test)),
  };
  return checkedCorpus({ vocabulary, splits }, folder);
}

interface WordStream {
  /** Different words in order of first appearance. */
  words: string[];
  counts: number[];
  /** Index into `words` of every token. */
  symbols: Int32Array;
}

function readWords(file: string): WordStream {
  const index = new Map<string, number>();
  const words: string[] = [];
  const counts: number[] = [];
  const builder = new TokenBuilder();
  const add = (word: string): void => {
    let symbol = index.get(word);
    if (symbol === undefined) {
      // A copy: a word cut out of a piece of text would keep the whole piece in memory.
      const own = Buffer.from(word).toString();
      symbol = words.push(own) - 1;
      counts.push(0);
      index.set(own, symbol);
    }
    counts[symbol]! += 1;
    builder.push(symbol);
  };
  for (const line of readLines(file)) {
    for (const word of splitWords(line)) add(word);
    add(endOfLine);
  }
  return { words, counts, symbols: builder.symbols() };
}

function idIn(vocabulary: WordVocabulary, word: string, file: string): number {
  try {
    return vocabulary.id(word);
  } catch (cause) {
    throw new FmoeError(
      'ERR_FILE',
      `${file}: the word ${JSON.stringify(word)} does not occur in the training part, which has no <unk> symbol.`,
      { cause },
    );
  }
}

function findFiles(folder: string): Record<SplitName, string> {
  const kind = kindOfPath(folder);
  if (kind !== 'folder') {
    const why = kind === undefined ? 'No such folder.' : 'It is a file, a folder was expected.';
    throw new FmoeError('ERR_FILE', `Cannot read ${folder}: ${why}`);
  }
  const forms = ['wiki.{}.tokens', '{}.txt'];
  for (const form of forms) {
    const path = (part: SplitName): string => join(folder, form.replace('{}', part));
    if (splitNames.every((part) => existsSync(path(part)))) {
      return { train: path('train'), valid: path('valid'), test: path('test') };
    }
  }
  const names = forms.map((form) => splitNames.map((part) => form.replace('{}', part)).join(', '));
  throw new FmoeError('ERR_FILE', `${folder} has neither ${names.join(' nor ')}.`);
}
