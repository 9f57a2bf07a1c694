import { FmoeError } from '@fmoe/torch';
import { CharacterVocabulary } from './character-vocabulary.js';
import { type Corpus, checkedCorpus } from './corpus.js';
import { readText } from './read-file.js';
import { encodeTokens, TokenBuilder } from './tokens.js';

/** Three UTF-8 files. */
export interface TextFiles {
  train: string;
  valid: string;
  test: string;
}

/** One UTF-8 file whose end is held out. */
export interface TextFile {
  path: string;
  /** Share of the characters for validation, just before the test part; 0.05 when left out. */
  validShare?: number | undefined;
  /** Share of the characters for test, at the end; 0.05 when left out. */
  testShare?: number | undefined;
}

/**
 * Plain UTF-8 text, one token a character (code point). The vocabulary holds the characters of the training
 * part in ascending order and one symbol for all others.
 *
 * @throws FmoeError ERR_FILE when a file is missing, unreadable, empty, not UTF-8 or too short
 * @throws FmoeError ERR_ARGUMENT when the shares leave nothing to train on
 */
export function loadTextCorpus(source: TextFiles | TextFile): Corpus {
  const parts = 'path' in source ? splitFile(source) : readFiles(source);
  const characters = [...new Set(parts.train)].map((code) => String.fromCodePoint(code));
  const vocabulary = CharacterVocabulary.fromText(characters);
  const encode = (codes: Int32Array) =>
    encodeTokens(codes, vocabulary.size, (code) => vocabulary.id(String.fromCodePoint(code)));
  const splits = { train: encode(parts.train), valid: encode(parts.valid), test: encode(parts.test) };
  return checkedCorpus({ vocabulary, splits }, 'path' in source ? source.path : source.train);
}

interface CodePoints {
  train: Int32Array;
  valid: Int32Array;
  test: Int32Array;
}

function readFiles(paths: TextFiles): CodePoints {
  return {
    train: readCodePoints(paths.train),
    valid: readCodePoints(paths.valid),
    test: readCodePoints(paths.test),
  };
}

function splitFile({ path, validShare = 0.05, testShare = 0.05 }: TextFile): CodePoints {
  if (!(validShare > 0 && testShare > 0 && validShare + testShare < 1)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `loadTextCorpus: validShare ${validShare} and testShare ${testShare} must be above 0 and below 1 together.`,
    );
  }
  const all = readCodePoints(path);
  const testFrom = all.length - Math.floor(all.length * testShare);
  const validFrom = testFrom - Math.floor(all.length * validShare);
  return {
    train: all.subarray(0, validFrom),
    valid: all.subarray(validFrom, testFrom),
    test: all.subarray(testFrom),
  };
}

function readCodePoints(path: string): Int32Array {
  const builder = new TokenBuilder();
  for (const piece of readText(path)) {
    for (const character of piece) builder.push(character.codePointAt(0)!);
  }
  return builder.symbols();
}
