import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadTextCorpus } from '@fmoe/models/data';
import { resolveConfig } from '@fmoe/models/training';
import { afterAll, describe, expect, it } from 'vitest';
import dense from '../dense.config.js';
import moe from '../moe.config.js';
import { normalize } from './normalize.js';
import { prepareSotu } from './prepare.js';

const folder = mkdtempSync(join(tmpdir(), 'fmoe-sotu-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const path = (name: string): string => join(folder, name);

describe('prepareSotu', () => {
  const data = prepareSotu(folder);

  it('splits all 233 speeches by year', () => {
    const { train, valid, test } = data.splits;
    expect([train, valid, test].map(({ speeches }) => speeches)).toEqual([221, 6, 6]);
    expect(train.years[1] + 1).toBe(valid.years[0]);
    expect(valid.years[1] + 1).toBe(test.years[0]);
    // 10,759,831 characters in the package, and a line feed after each speech.
    expect(train.characters + valid.characters + test.characters).toBe(10_759_831 + 233);
    for (const split of [train, valid, test]) {
      const text = readFileSync(path(split.file), 'utf8');
      expect([...text].length).toBe(split.characters);
      expect(text.split('\n').length).toBe(split.speeches + 1);
    }
    expect(readFileSync(path('train.txt'), 'utf8')).toMatch(/^Fellow-Citizens of the Senate and House/);
  });

  it('gives a vocabulary of 91 symbols that encodes every part', () => {
    const corpus = loadTextCorpus({
      train: path('train.txt'),
      valid: path('valid.txt'),
      test: path('test.txt'),
    });
    expect(corpus.vocabulary.size).toBe(91);
    expect(data.vocabulary).toBe(91);
    const unknown = (part: 'train' | 'valid' | 'test') =>
      corpus.splits[part].filter((id) => id === 90).length;
    // The accented letters of naïve (2015), Nicolás and Guaidó (2020).
    expect([unknown('train'), unknown('valid'), unknown('test')]).toEqual([0, 1, 2]);
  });

  it('does nothing when the files are there, and makes damaged ones again', () => {
    const made = statSync(path('train.txt')).mtimeMs;
    expect(prepareSotu(folder)).toEqual(data);
    expect(statSync(path('train.txt')).mtimeMs).toBe(made);
    truncateSync(path('valid.txt'), 10);
    expect(prepareSotu(folder)).toEqual(data);
    expect(statSync(path('valid.txt')).size).toBe(data.splits.valid.bytes);
  });
});

describe('normalize', () => {
  it('makes typographic marks plain and leaves dashes', () => {
    expect(normalize('“It’s” post\u2011war, 1990–91 — done')).toBe('"It\'s" post-war, 1990-91 — done');
  });
});

describe('the two configurations', () => {
  it('differ in the feed-forward alone, at the same multiplications per token', () => {
    const [a, b] = [resolveConfig(moe), resolveConfig(dense)];
    const { moe: experts, dInner: expertInner, ...restA } = a.model;
    const { moe: none, dInner: denseInner, ...restB } = b.model;
    expect(none).toBeUndefined();
    expect(experts!.topK * expertInner).toBe(denseInner);
    expect(restA).toEqual(restB);
    expect({ ...a, name: '', model: {} }).toEqual({ ...b, name: '', model: {} });
  });
});
