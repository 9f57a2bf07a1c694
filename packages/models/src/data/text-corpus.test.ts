import { chmodSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { codedError, folderWith, temporaryFolder } from '../../test/support/temporary-folder.js';
import { CharacterVocabulary, unknownCharacter } from './character-vocabulary.js';
import { restoreVocabulary } from './restore-vocabulary.js';
import { loadTextCorpus } from './text-corpus.js';

describe('loadTextCorpus', () => {
  it('builds the vocabulary from the training part and maps other characters to one symbol', () => {
    const folder = folderWith({ 'a.txt': 'cab 😀\n', 'b.txt': 'back', 'c.txt': 'é\n' });
    const { vocabulary, splits } = loadTextCorpus({
      train: `${folder}/a.txt`,
      valid: `${folder}/b.txt`,
      test: `${folder}/c.txt`,
    });
    expect((vocabulary as CharacterVocabulary).characters).toEqual([
      '\n',
      ' ',
      'a',
      'b',
      'c',
      '😀',
      unknownCharacter,
    ]);
    expect(Array.from(splits.train)).toEqual([4, 2, 3, 1, 5, 0]);
    expect(Array.from(splits.valid)).toEqual([3, 2, 4, 6]);
    expect(vocabulary.decode(splits.test)).toBe(`${unknownCharacter}\n`);
  });

  it('cuts one file by shares of its characters', () => {
    const text = 'abcdefghij'.repeat(10);
    const folder = folderWith({ all: text });
    const corpus = loadTextCorpus({ path: `${folder}/all`, validShare: 0.1, testShare: 0.2 });
    const decode = (part: 'train' | 'valid' | 'test') => corpus.vocabulary.decode(corpus.splits[part]);
    expect(decode('train')).toBe(text.slice(0, 70));
    expect(decode('valid')).toBe(text.slice(70, 80));
    expect(decode('test')).toBe(text.slice(80));
    expect(() => loadTextCorpus({ path: `${folder}/all`, validShare: 0.5, testShare: 0.5 })).toThrow(
      codedError('ERR_ARGUMENT', /below 1 together/),
    );
  });

  it('reads files larger than one piece without cutting characters', () => {
    const text = `x${'é'.repeat(2_500_000)}`;
    const folder = folderWith({ all: text });
    const { splits, vocabulary } = loadTextCorpus({ path: `${folder}/all` });
    expect(splits.train.length + splits.valid.length + splits.test.length).toBe(2_500_001);
    expect(vocabulary.size).toBe(3);
  });

  it('refuses files that cannot be used', () => {
    const folder = folderWith({
      ok: 'some text',
      empty: '',
      one: 'x',
      latin: Uint8Array.of(65, 233, 66, 67),
    });
    const load = (name: string) => () =>
      loadTextCorpus({ train: `${folder}/ok`, valid: `${folder}/ok`, test: `${folder}/${name}` });
    expect(load('none')).toThrow(codedError('ERR_FILE', /Cannot read .*none: No such file/));
    expect(load('empty')).toThrow(codedError('ERR_FILE', /the file is empty/));
    expect(load('one')).toThrow(codedError('ERR_FILE', /the test part has 1 characters, at least 2/));
    expect(load('latin')).toThrow(codedError('ERR_FILE', /it is not UTF-8 text \(between byte 0 and 4\)/));
    expect(() => loadTextCorpus({ path: temporaryFolder() })).toThrow(
      codedError('ERR_FILE', /It is a folder/),
    );
  });

  it('refuses a file without permission', ({ skip }) => {
    skip(process.getuid?.() === 0, 'the superuser may read every file');
    const folder = folderWith({ secret: 'text' });
    chmodSync(`${folder}/secret`, 0);
    expect(() => loadTextCorpus({ path: `${folder}/secret` })).toThrow(codedError('ERR_FILE', /chmod u\+r/));
  });
});

describe('CharacterVocabulary', () => {
  it('survives JSON', () => {
    const vocabulary = CharacterVocabulary.fromText(['hello ', 'wörld']);
    const again = restoreVocabulary(JSON.parse(JSON.stringify(vocabulary)));
    expect(Array.from(again.encode('wörld!'))).toEqual(Array.from(vocabulary.encode('wörld!')));
    expect(again.size).toBe(vocabulary.size);
  });

  it('refuses entries that are not single characters, and foreign JSON', () => {
    expect(() => new CharacterVocabulary(['ab'])).toThrow(
      codedError('ERR_ARGUMENT', /expected one character/),
    );
    expect(() => new CharacterVocabulary(['a', 'a'])).toThrow(codedError('ERR_ARGUMENT', /occurs twice/));
    for (const value of [null, 3, {}, { kind: 'word', words: [1] }]) {
      expect(() => restoreVocabulary(value)).toThrow(codedError('ERR_FILE', /not one that fmoe wrote/));
    }
  });
});
