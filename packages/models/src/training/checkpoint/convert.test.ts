import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { loadSafetensors } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { codedError, temporaryFolder } from '../../../test/support/temporary-folder.js';
import { tinyConfig, tinyFolder } from '../../../test/support/tiny-run.js';
import { makeTrainer } from '../../../test/support/tiny-trainer.js';
import { files } from './checkpoint-file.js';
import { describeCheckpoint, mergeCheckpoint, splitCheckpoint } from './convert.js';

const config = tinyConfig(tinyFolder(), {
  model: { moe: { numExpert: 5 } },
  training: { batchSize: 5, batchChunk: 2 },
});
const { trainer } = makeTrainer(config);
for (let step = 0; step < 3; step++) trainer.trainStep();
const saved = trainer.save();
const json = (folder: string) =>
  JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as Record<string, unknown>;
const output = () => join(temporaryFolder(), 'output');

describe('a checkpoint that is split', () => {
  const split = output();
  splitCheckpoint(saved, split, 3);

  it('gives each rank its experts and columns, and the first rank the rest', () => {
    const whole = loadSafetensors(join(saved, files.model)).tensors;
    const stacked = 'layers.1.pos_ff.experts.htoh4.weight';
    const ids = [[0, 1], [2, 3], [4]];
    for (const [rank, own] of ids.entries()) {
      const { tensors } = loadSafetensors(join(split, `model-0000${rank}-of-00003.safetensors`));
      const names = Object.keys(tensors).filter((name) => name.startsWith(stacked));
      expect(names).toEqual(own.map((id) => `${stacked}#${id}`));
      for (const id of own)
        expect(tensors[`${stacked}#${id}`]!.toArray()).toEqual(whole[stacked]!.select(0, id).toArray());
      expect('word_emb.emb_layers.0.weight' in tensors).toBe(rank === 0);
      const run = loadSafetensors(join(split, `run-0000${rank}-of-00003.safetensors`)).tensors;
      // Columns 0; 1, 2; 3, 4.
      expect(run[`mems.${rank}.0`]!.shape[1]).toBe(rank === 0 ? 1 : 2);
    }
  });

  it('goes on as before on one process', () => {
    const values = [saved, split].map((folder) => {
      const { trainer, model } = makeTrainer(config);
      trainer.restore(folder);
      for (let step = 0; step < 3; step++) trainer.trainStep();
      return model.parameters().map((parameter) => parameter.toArray());
    });
    expect(values[1]).toEqual(values[0]);
  });

  it('is what it was when it is merged, byte by byte', () => {
    const merged = output();
    mergeCheckpoint(split, merged);
    expect(readFileSync(join(merged, files.optimizer))).toEqual(readFileSync(join(saved, files.optimizer)));
    const before = loadSafetensors(join(saved, files.model)).tensors;
    const after = loadSafetensors(join(merged, files.model)).tensors;
    expect(Object.keys(after).sort()).toEqual(Object.keys(before).sort());
    for (const [name, tensor] of Object.entries(before))
      expect(after[name]!.toArray()).toEqual(tensor.toArray());
    const { files: _, memories: __, ...state } = json(merged);
    expect(json(saved)).toMatchObject(state);
    const other = makeTrainer(config);
    other.trainer.restore(merged);
    other.trainer.trainStep();
    expect(other.trainer.step).toBe(4);
  });

  it('can be split anew for other ranks', () => {
    const again = output();
    splitCheckpoint(split, again, 2);
    const merged = output();
    mergeCheckpoint(again, merged);
    expect(readFileSync(join(merged, files.optimizer))).toEqual(readFileSync(join(saved, files.optimizer)));
  });

  it('describes itself by the names of one process', () => {
    const [before, after] = [describeCheckpoint(saved), describeCheckpoint(split)];
    expect([before.ranks, after.ranks, after.step]).toEqual([1, 3, 3]);
    expect(Object.keys(after.files).length).toBe(9);
    const names = (of: typeof before) => of.tensors.map(({ name }) => name).sort();
    expect(names(after)).toEqual(names(before));
    const expert = after.tensors.find(({ name }) => name === 'layers.0.pos_ff.experts.h4toh.bias');
    expect(expert).toEqual({
      name: 'layers.0.pos_ff.experts.h4toh.bias',
      shape: [16],
      dtype: 'F32',
      experts: 5,
    });
  });

  it('is refused when a part of it is missing, or the output is there', () => {
    expect(() => mergeCheckpoint(split, saved)).toThrow(codedError('ERR_FILE', /is there already/));
    const damaged = output();
    splitCheckpoint(saved, damaged, 2);
    rmSync(join(damaged, 'optimizer-00001-of-00002.safetensors'));
    expect(() => mergeCheckpoint(damaged, output())).toThrow(
      codedError('ERR_FILE', /incomplete: optimizer-00001-of-00002\.safetensors is missing/),
    );
    expect(() => makeTrainer(config).trainer.restore(damaged)).toThrow(codedError('ERR_FILE', /is missing/));
  });
});
