import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { codedError, folderWith, temporaryFolder } from '../../test/support/temporary-folder.js';
import { loadByteCorpus } from './byte-corpus.js';
import type { ByteVocabulary } from './byte-vocabulary.js';
import { type Corpus, splitNames } from './corpus.js';

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url));
const read = (path: string): Buffer => readFileSync(`${fixtures}${path}`);

interface Expected {
  order: (number | string)[];
  train: number[];
  valid: number[];
  test: number[];
}

const enwik8 = JSON.parse(read('enwik8/expected.json').toString()) as { drop: Expected; keep: Expected };
const text8 = JSON.parse(read('text8/expected.json').toString()) as Expected;
const heldOut = 120;

function check(corpus: Corpus, expected: Expected, order: number[]): void {
  expect((corpus.vocabulary as ByteVocabulary).bytes).toEqual(order);
  for (const part of splitNames) expect(Array.from(corpus.splits[part])).toEqual(expected[part]);
}

describe('loadByteCorpus, enwik8', () => {
  it('reads the prepared files as Python does, without line feeds', () => {
    check(
      loadByteCorpus('enwik8', { path: `${fixtures}enwik8` }),
      enwik8.drop,
      enwik8.drop.order as number[],
    );
  });

  it('reads the raw file to the same stream', () => {
    const corpus = loadByteCorpus('enwik8', { path: `${fixtures}enwik8/raw`, heldOut });
    check(corpus, enwik8.drop, enwik8.drop.order as number[]);
  });

  it.each(['enwik8', 'enwik8/raw'])('keeps line feeds when asked to (%s)', (name) => {
    const corpus = loadByteCorpus('enwik8', { path: fixtures + name, heldOut, lineFeeds: 'keep' });
    check(corpus, enwik8.keep, enwik8.keep.order as number[]);
    const text = corpus.vocabulary.decode(corpus.splits.test);
    expect(text).toBe(new TextDecoder().decode(read('enwik8/raw').subarray(-heldOut)));
  });

  it('finds the raw file in its folder', () => {
    const folder = folderWith({ enwik8: read('enwik8/raw') });
    check(loadByteCorpus('enwik8', { path: folder, heldOut }), enwik8.drop, enwik8.drop.order as number[]);
  });
});

describe('loadByteCorpus, text8', () => {
  const order = text8.order.map((symbol) => (symbol === '_' ? 32 : (symbol as string).charCodeAt(0)));

  it('reads the prepared files and the raw file to the same stream', () => {
    check(loadByteCorpus('text8', { path: `${fixtures}text8` }), text8, order);
    check(loadByteCorpus('text8', { path: `${fixtures}text8/raw`, heldOut }), text8, order);
  });

  it('encodes and decodes text', () => {
    const { vocabulary } = loadByteCorpus('text8', { path: `${fixtures}text8` });
    expect(vocabulary.decode(vocabulary.encode('a term of abuse'))).toBe('a term of abuse');
    expect(() => vocabulary.encode('Q')).toThrow(
      codedError('ERR_ARGUMENT', /byte 81 \("Q"\) does not occur/),
    );
    expect(() => vocabulary.decode([99])).toThrow(codedError('ERR_INDEX', /token id 99 is outside/));
  });
});

describe('loadByteCorpus refuses', () => {
  const cases: [why: string, make: () => string, message: RegExp][] = [
    ['a missing path', () => `${temporaryFolder()}/enwik8`, /No such file/],
    ['an empty file', () => `${folderWith({ enwik8: '' })}/enwik8`, /the file is empty/],
    [
      'a folder without the corpus',
      () => temporaryFolder(),
      /holds neither the raw file enwik8 nor train\.txt/,
    ],
    [
      'a file too short to be split',
      () => `${folderWith({ enwik8: 'abc' })}/enwik8`,
      /has 3 bytes; .* more than 240 are needed/,
    ],
    [
      'a zip archive',
      () => `${folderWith({ z: 'PK\u0003\u0004'.padEnd(999) })}/z`,
      /is a zip archive\. Unzip it/,
    ],
    [
      'plain text in place of byte values',
      () => folderWith({ 'train.txt': 'Hello there' }),
      /train\.txt is not in the prepared format/,
    ],
    [
      'values that are no bytes',
      () => folderWith({ 'train.txt': '12 256 3' }),
      /train\.txt is not in the prepared format/,
    ],
    [
      'a missing part',
      () => folderWith({ 'train.txt': '12 25 3' }),
      /Cannot read .*valid\.txt: No such file/,
    ],
  ];
  it.each(cases)('%s', (_, make, message) => {
    expect(() => loadByteCorpus('enwik8', { path: make(), heldOut })).toThrow(
      codedError('ERR_FILE', message),
    );
  });
});
