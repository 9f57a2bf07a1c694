import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import { ByteVocabulary } from './byte-vocabulary.js';
import { type Corpus, checkedCorpus, type SplitName, splitNames } from './corpus.js';
import { kindOfPath, readChunks } from './read-file.js';
import { encodeTokens, TokenBuilder } from './tokens.js';
import { byFrequency } from './vocabulary.js';

/** Where enwik8 or text8 lies and how it is read. */
export interface ByteCorpusOptions {
  /**
   * The raw file (`enwik8` or `text8`, unzipped), a folder that holds it, or a folder with the prepared
   * `train.txt`, `valid.txt` and `test.txt` of the scripts that Transformer-XL's users run.
   */
  path: string;
  /** Bytes of the raw file for validation and as many again for test; 5,000,000 when left out. */
  heldOut?: number | undefined;
  /**
   * `'drop'` leaves byte 10 out, as Transformer-XL does: its reader takes the line ends of the prepared files
   * for white space, so that enwik8 has 204 symbols. `'keep'` counts it as a symbol (205). `'drop'` when left
   * out, since published figures and checkpoints are of that stream. text8 has no line ends.
   */
  lineFeeds?: 'drop' | 'keep' | undefined;
}

const lineFeed = 10;

/**
 * enwik8 or text8: one token a byte. Ids are in order of frequency over all three parts, ties in order of first
 * appearance, as Transformer-XL numbers them; the raw and the prepared form give the same stream.
 *
 * @throws FmoeError ERR_FILE when a file is missing, unreadable, empty, too short or in another format
 */
export function loadByteCorpus(name: 'enwik8' | 'text8', options: ByteCorpusOptions): Corpus {
  const { path, heldOut = 5_000_000, lineFeeds = 'drop' } = options;
  const kind = kindOfPath(path);
  const raw = kind === 'folder' ? join(path, name) : path;
  const prepared = kind === 'folder' && existsSync(join(path, 'train.txt'));
  if (kind === 'folder' && !prepared && !existsSync(raw)) {
    throw new FmoeError(
      'ERR_FILE',
      `${path} holds neither the raw file ${name} nor train.txt, valid.txt and test.txt. Unzip ${name}.zip there.`,
    );
  }
  const parts = prepared ? readPrepared(name, path) : splitRaw(name, raw, heldOut);
  const bytes = lineFeeds === 'drop' ? mapSplits((part) => parts[part].filter(isNotLineFeed)) : parts;

  const vocabulary = frequencyVocabulary(bytes);
  const ids = new Map(vocabulary.bytes.map((byte, id) => [byte, id]));
  const splits = mapSplits((part) => encodeTokens(bytes[part], vocabulary.size, (byte) => ids.get(byte)!));
  return checkedCorpus({ vocabulary, splits }, path);
}

type Parts = Record<SplitName, Int32Array>;

const isNotLineFeed = (byte: number): boolean => byte !== lineFeed;

function mapSplits<T>(make: (part: SplitName) => T): Record<SplitName, T> {
  return { train: make('train'), valid: make('valid'), test: make('test') };
}

function frequencyVocabulary(parts: Parts): ByteVocabulary {
  const order: number[] = [];
  const counts = new Float64Array(256);
  for (const part of splitNames) {
    for (const byte of parts[part]) {
      if (counts[byte] === 0) order.push(byte);
      counts[byte]! += 1;
    }
  }
  const ranked = byFrequency(order.map((byte) => counts[byte]!));
  return new ByteVocabulary(ranked.map((index) => order[index]!));
}

function splitRaw(name: string, file: string, heldOut: number): Parts {
  const builder = new TokenBuilder();
  for (const chunk of readChunks(file)) {
    if (builder.length === 0 && chunk[0] === 0x50 && chunk[1] === 0x4b && chunk[2] === 3) {
      throw new FmoeError('ERR_FILE', `${file} is a zip archive. Unzip it and give the path of ${name}.`);
    }
    for (const byte of chunk) builder.push(byte);
  }
  const all = builder.symbols();
  if (all.length <= 2 * heldOut) {
    throw new FmoeError(
      'ERR_FILE',
      `${file} has ${all.length} bytes; ${name} is split into the last ${heldOut} for test, ${heldOut} before them ` +
        `for validation and the rest for training, so more than ${2 * heldOut} are needed.`,
    );
  }
  const validFrom = all.length - 2 * heldOut;
  const parts = {
    train: all.subarray(0, validFrom),
    valid: all.subarray(validFrom, validFrom + heldOut),
    test: all.subarray(validFrom + heldOut),
  };
  return name === 'text8' ? mapSplits((part) => trimmed(parts[part])) : parts;
}

/** text8's parts without the spaces at their ends, which its preparation script strips. */
function trimmed(bytes: Int32Array): Int32Array {
  let from = 0;
  let to = bytes.length;
  while (from < to && isSpace(bytes[from]!)) from += 1;
  while (to > from && isSpace(bytes[to - 1]!)) to -= 1;
  return bytes.subarray(from, to);
}

const isSpace = (byte: number): boolean => byte === 32 || (byte >= 9 && byte <= 13);

function readPrepared(name: 'enwik8' | 'text8', folder: string): Parts {
  const read = name === 'enwik8' ? readByteIds : readLetters;
  return mapSplits((part) => read(join(folder, `${part}.txt`)));
}

/** enwik8's prepared form: byte values in decimal between single spaces, and a line end for byte 10. */
function readByteIds(file: string): Int32Array {
  const builder = new TokenBuilder();
  let value = -1;
  const flush = (): void => {
    if (value >= 0) builder.push(value);
    value = -1;
  };
  for (const chunk of readChunks(file)) {
    for (const code of chunk) {
      if (code >= 48 && code <= 57) {
        value = Math.max(value, 0) * 10 + code - 48;
        if (value > 255) throw notPrepared(file, 'byte values from 0 to 255 between spaces');
      } else if (code === lineFeed) {
        flush();
        builder.push(lineFeed);
      } else if (code === 32 || code === 13) {
        flush();
      } else {
        throw notPrepared(file, 'byte values from 0 to 255 between spaces');
      }
    }
  }
  flush();
  return builder.symbols();
}

/** text8's prepared form: letters between single spaces, `_` for a space. */
function readLetters(file: string): Int32Array {
  const builder = new TokenBuilder();
  let previousIsLetter = false;
  for (const chunk of readChunks(file)) {
    for (const code of chunk) {
      const letter = !isSpace(code);
      if (letter && previousIsLetter) throw notPrepared(file, 'single letters between spaces');
      if (letter) builder.push(code === 95 ? 32 : code);
      previousIsLetter = letter;
    }
  }
  return builder.symbols();
}

function notPrepared(file: string, expected: string): FmoeError {
  return new FmoeError(
    'ERR_FILE',
    `${file} is not in the prepared format (${expected}). For plain text use data kind 'text'; for the raw file give its path.`,
  );
}
