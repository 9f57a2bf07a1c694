import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { memory } from '@fmoe/torch';
import { beforeAll, describe, expect, it } from 'vitest';
import { codedError, temporaryFolder } from '../../../test/support/temporary-folder.js';
import { tinyConfig, tinyFolder } from '../../../test/support/tiny-run.js';
import { makeTrainer } from '../../../test/support/tiny-trainer.js';
import { CheckpointFolder } from './checkpoint-folder.js';

describe('a damaged checkpoint', () => {
  const { trainer, model } = makeTrainer(tinyConfig(tinyFolder()));
  let saved: string;

  beforeAll(() => {
    trainer.trainStep();
    saved = trainer.save();
  });

  function damaged(damage: (folder: string) => void): string {
    const folder = join(temporaryFolder(), 'checkpoint');
    cpSync(saved, folder, { recursive: true });
    damage(folder);
    return folder;
  }

  const state = (folder: string) => join(folder, 'state.json');
  const edit = (folder: string, change: (value: Record<string, unknown>) => void): void => {
    const value = JSON.parse(readFileSync(state(folder), 'utf8')) as Record<string, unknown>;
    change(value);
    writeFileSync(state(folder), JSON.stringify(value));
  };

  const cases: [why: string, damage: (folder: string) => void, message: RegExp][] = [
    ['a missing state', (f) => rmSync(state(f)), /is not a checkpoint: it has no readable state\.json/],
    ['a truncated state', (f) => truncateSync(state(f), 100), /state\.json is truncated or damaged/],
    ['a foreign state', (f) => writeFileSync(state(f), '{"step": 3}'), /is not a checkpoint that fmoe wrote/],
    [
      'another version',
      (f) => edit(f, (value) => Object.assign(value, { version: 99 })),
      /has version 99; this fmoe reads version 1/,
    ],
    [
      'a truncated model',
      (f) => truncateSync(join(f, 'model.safetensors'), 900),
      /model\.safetensors is truncated: it has 900 of \d+ bytes/,
    ],
    [
      'an empty optimizer file',
      (f) => truncateSync(join(f, 'optimizer.safetensors'), 0),
      /optimizer\.safetensors is truncated: it has 0 of/,
    ],
    [
      'a missing file',
      (f) => rmSync(join(f, 'run.safetensors')),
      /is incomplete: run\.safetensors is missing/,
    ],
    [
      'a file of another checkpoint',
      (f) => {
        const path = join(f, 'model.safetensors');
        const bytes = readFileSync(path);
        bytes[bytes.length - 1]! ^= 1;
        writeFileSync(path, bytes);
      },
      /its checksum differs/,
    ],
    [
      'a file that is longer',
      (f) => writeFileSync(join(f, 'run.safetensors'), 'x', { flag: 'a' }),
      /its checksum differs/,
    ],
  ];
  it.each(cases)('is refused: %s', (_, damage, message) => {
    const before = model.parameters()[0]!.toArray();
    const tensors = memory().tensors;
    expect(() => trainer.restore(damaged(damage))).toThrow(codedError('ERR_FILE', message));
    expect(model.parameters()[0]!.toArray()).toEqual(before);
    expect(memory().tensors).toBe(tensors);
  });

  it('is told from one of another model', () => {
    const wider = makeTrainer(tinyConfig(tinyFolder(), { model: { dInner: 32 } }));
    expect(() => wider.trainer.restore(saved)).toThrow(
      codedError('ERR_STATE_DICT', /does not fit the module/),
    );
  });

  it('is loaded whole when it is whole', () => {
    trainer.trainStep();
    trainer.restore(damaged(() => {}));
    expect(trainer.step).toBe(1);
  });
});

describe('CheckpointFolder', () => {
  const write = (content: string) => (folder: string) => writeFileSync(join(folder, 'state.json'), content);

  it('lists finished checkpoints in order and ignores what an interrupted save left', () => {
    const folder = new CheckpointFolder(join(temporaryFolder(), 'checkpoints'));
    expect(folder.list()).toEqual([]);
    for (const step of [100, 20, 3]) folder.add(step, write(`${step}`));
    mkdirSync(join(folder.path, '.tmp-step-00000120-1'));
    mkdirSync(join(folder.path, 'notes'));
    expect(folder.list().map(({ step }) => step)).toEqual([3, 20, 100]);
    expect(folder.find('last')).toMatch(/step-00000100$/);
    expect(folder.find('20')).toMatch(/step-00000020$/);
    folder.add(121, write('121'));
    expect(existsSync(join(folder.path, '.tmp-step-00000120-1'))).toBe(false);
  });

  it('leaves nothing of a save that fails, and keeps what was there', () => {
    const folder = new CheckpointFolder(join(temporaryFolder(), 'checkpoints'));
    folder.add(1, write('old'));
    const fail = (path: string) => {
      write('half')(path);
      throw new Error('disk full');
    };
    expect(() => folder.add(1, fail)).toThrow(codedError('ERR_FILE', /Cannot save a checkpoint .*disk full/));
    expect(() => folder.add(2, fail)).toThrow(codedError('ERR_FILE', /disk full/));
    expect(readdirSync(folder.path)).toEqual(['step-00000001']);
    expect(readFileSync(join(folder.find('1'), 'state.json'), 'utf8')).toBe('old');
  });

  it('replaces a checkpoint of the same step', () => {
    const folder = new CheckpointFolder(join(temporaryFolder(), 'checkpoints'));
    folder.add(1, write('old'));
    folder.add(1, write('new'));
    expect(readFileSync(join(folder.find('1'), 'state.json'), 'utf8')).toBe('new');
    expect(readdirSync(folder.path)).toEqual(['step-00000001']);
  });

  it('keeps the last ones and the best one', () => {
    const folder = new CheckpointFolder(join(temporaryFolder(), 'checkpoints'));
    for (const step of [1, 2, 3, 4, 5]) folder.add(step, write(''));
    folder.markBest(2, 1.5);
    folder.prune(2);
    expect(readdirSync(folder.path).sort()).toEqual([
      'best.json',
      'step-00000002',
      'step-00000004',
      'step-00000005',
    ]);
    expect(folder.find('best')).toMatch(/step-00000002$/);
    expect(folder.best()).toEqual({ step: 2, loss: 1.5 });
  });

  it('says what there is when a checkpoint is not found', () => {
    const folder = new CheckpointFolder(join(temporaryFolder(), 'checkpoints'));
    expect(() => folder.find('last')).toThrow(codedError('ERR_FILE', /has no checkpoint yet/));
    expect(() => folder.find('best')).toThrow(codedError('ERR_FILE', /nothing was evaluated yet/));
    folder.add(7, write(''));
    expect(() => folder.find('8')).toThrow(
      codedError('ERR_FILE', /no checkpoint 8\. Steps that were kept: 7\./),
    );
  });
});
