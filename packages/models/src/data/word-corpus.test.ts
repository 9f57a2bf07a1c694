import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { codedError, folderWith, temporaryFolder } from '../../test/support/temporary-folder.js';
import { splitNames } from './corpus.js';
import { loadWordCorpus } from './word-corpus.js';
import type { WordVocabulary } from './word-vocabulary.js';

const folder = fileURLToPath(new URL('./fixtures/wikitext/', import.meta.url));
const expected = JSON.parse(readFileSync(`${folder}expected.json`, 'utf8')) as {
  order: string[];
  train: number[];
  valid: number[];
  test: number[];
};

describe('loadWordCorpus', () => {
  it('splits and numbers words as Python does', () => {
    const { vocabulary, splits } = loadWordCorpus(folder);
    expect((vocabulary as WordVocabulary).words).toEqual(expected.order);
    for (const part of splitNames) expect(Array.from(splits[part])).toEqual(expected[part]);
  });

  it('reads the file names of the original download', () => {
    const files = Object.fromEntries(
      splitNames.map((part) => [`wiki.${part}.tokens`, readFileSync(`${folder}${part}.txt`)]),
    );
    expect(Array.from(loadWordCorpus(folderWith(files)).splits.valid)).toEqual(expected.valid);
  });

  it('decodes to lines of words', () => {
    const { vocabulary } = loadWordCorpus(folder);
    expect(vocabulary.decode(vocabulary.encode('the game\n= the\n'))).toBe('the game\n= the\n');
  });

  it('takes <unk> for words that the training part lacks, and refuses them where it has none', () => {
    const held = { 'valid.txt': 'a new\n', 'test.txt': 'a\n' };
    const withUnknown = loadWordCorpus(folderWith({ 'train.txt': 'a a <unk>\n', ...held }));
    expect(withUnknown.vocabulary.decode(withUnknown.splits.valid)).toBe('a <unk>\n');
    expect(() => loadWordCorpus(folderWith({ 'train.txt': 'a a b\n', ...held }))).toThrow(
      codedError('ERR_FILE', /valid\.txt: the word "new" does not occur in the training part/),
    );
  });

  it('refuses folders without the files', () => {
    const empty = temporaryFolder();
    expect(() => loadWordCorpus(empty)).toThrow(codedError('ERR_FILE', /has neither wiki\.train\.tokens/));
    expect(() => loadWordCorpus(`${empty}/none`)).toThrow(codedError('ERR_FILE', /No such folder/));
    expect(() => loadWordCorpus(`${folder}train.txt`)).toThrow(codedError('ERR_FILE', /It is a file/));
  });
});
