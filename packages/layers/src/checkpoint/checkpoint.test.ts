import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type FmoeError,
  loadSafetensors,
  loadTorchFile,
  type nn,
  saveTorchFile,
  type Tensor,
  tidy,
  zeros,
} from '@fmoe/torch';
import { expectAllClose, expectIdentical } from '@fmoe/torch/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SingleExpert } from '../../test/experts.js';
import {
  FMoE,
  FMoETransformerMLP,
  loadFastMoECheckpoint,
  saveFastMoECheckpoint,
  toExpertForm,
} from '../index.js';

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../test/fixtures/${name}`, import.meta.url));
const sizes = { numExpert: 3, dModel: 4, dHidden: 5, topK: 2 };

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fmoe-checkpoint-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const layers = {
  'a fused layer': () => new FMoETransformerMLP(sizes).to('float64'),
  'a layer with a module for each expert': () =>
    new FMoE({ numExpert: 3, dModel: 4, topK: 2, expert: () => new SingleExpert() }).to('float64'),
};

describe.each(Object.entries(layers))('%s', (_, make) => {
  it.each([
    'fastmoe-fused.pt',
    'fastmoe-fused.safetensors',
    'fastmoe-per-expert.pt',
    'fastmoe-per-expert.safetensors',
    'fastmoe-wrapped.pt',
  ])('gives the outputs of PyTorch after loading %s', (name) => {
    tidy(() => {
      const layer = make();
      const options = name === 'fastmoe-wrapped.pt' ? { key: 'model.state' } : {};
      expect(loadFastMoECheckpoint(layer, fixture(name), options)).toEqual({
        missingKeys: [],
        unexpectedKeys: [],
      });
      const { x, y } = loadSafetensors(fixture('fastmoe-outputs.safetensors')).tensors;
      expectAllClose(layer.forward(x!) as Tensor, y!, { rtol: 1e-12, atol: 1e-12 });
    });
  });

  it.each([
    ['fused', 'pt'],
    ['fused', 'safetensors'],
    ['perExpert', 'pt'],
    ['perExpert', 'safetensors'],
  ] as const)(
    'is written %s as .%s with the names, shapes and bits of the fixture, and loads back',
    (form, ending) => {
      tidy(() => {
        const layer = make();
        const source = form === 'fused' ? 'fastmoe-fused.pt' : 'fastmoe-per-expert.pt';
        loadFastMoECheckpoint(layer, fixture(source));
        const path = join(folder, `written.${ending}`);
        saveFastMoECheckpoint(layer, path, { form });
        const written = (
          ending === 'pt' ? loadTorchFile(path) : loadSafetensors(path).tensors
        ) as nn.StateDict;
        const wanted = loadTorchFile(fixture(source)) as nn.StateDict;
        expect(Object.keys(written).sort()).toEqual(Object.keys(wanted).sort());
        for (const [key, tensor] of Object.entries(wanted)) expectIdentical(written[key]!, tensor);
        for (const other of Object.values(layers)) {
          const again = other();
          loadFastMoECheckpoint(again, path);
          const x = loadSafetensors(fixture('fastmoe-outputs.safetensors')).tensors['x']!;
          expectAllClose(again.forward(x) as Tensor, layer.forward(x) as Tensor, {
            rtol: 1e-12,
            atol: 1e-12,
          });
        }
      });
    },
  );
});

describe('toExpertForm', () => {
  it('leaves alone what is no expert of two layers', () => {
    tidy(() => {
      const state = { 'a.experts.0.weight': zeros([1, 2]), 'experts.bias': zeros([2]), b: zeros([1]) };
      expect(toExpertForm(state, 'fused')).toEqual(state);
      expect(toExpertForm(state, 'perExpert')).toEqual(state);
    });
  });

  it.each([
    [
      'a missing expert',
      { 'experts.0.htoh4.bias': [1, 2], 'experts.2.htoh4.bias': [1, 2] },
      /none with the number 1/,
    ],
    ['two experts under one number', { 'experts.0.htoh4.bias': [2, 2] }, /\[2, 2\], expected \[1, ...\]/],
    ['both forms', { 'experts.htoh4.bias': [1, 2], 'experts.0.htoh4.bias': [1, 2] }, /both forms/],
  ])('refuses %s', (_, shapes, message) => {
    tidy(() => {
      const state = Object.fromEntries(
        Object.entries(shapes).map(([key, shape]) => [key, zeros(shape as number[])]),
      );
      expect(() => toExpertForm(state, 'fused')).toThrow(
        expect.objectContaining({ code: 'ERR_STATE_DICT', message: expect.stringMatching(message) }),
      );
    });
  });
});

describe('loadFastMoECheckpoint', () => {
  it('leaves the model as it was when the file does not fit', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP({ ...sizes, dHidden: 6 });
      const before = layer.experts.htoh4.weight.toArray();
      let error: FmoeError | undefined;
      try {
        loadFastMoECheckpoint(layer, fixture('fastmoe-fused.pt'));
      } catch (thrown) {
        error = thrown as FmoeError;
      }
      expect(error?.code).toBe('ERR_STATE_DICT');
      expect(error?.message).toMatch(
        /experts.htoh4.weight: the dict has \[3, 5, 4\], the module \[3, 6, 4\]/,
      );
      expect(layer.experts.htoh4.weight.toArray()).toEqual(before);
    });
  });

  it('refuses a file without a state dict and says where it might be', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP(sizes);
      saveTorchFile(join(folder, 'list.pt'), [1, 2]);
      writeFileSync(join(folder, 'text.pt'), 'text');
      for (const [path, message] of [
        [fixture('fastmoe-wrapped.pt'), /keys iteration, model.*\{ key: 'model' \}/],
        [join(folder, 'list.pt'), /it is none/],
        [join(folder, 'text.pt'), /no zip archive/],
      ] as const) {
        expect(() => loadFastMoECheckpoint(layer, path)).toThrow(
          expect.objectContaining({ code: 'ERR_FILE', message: expect.stringMatching(message) }),
        );
      }
    });
  });
});
