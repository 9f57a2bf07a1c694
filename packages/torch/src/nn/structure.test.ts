import { describe, expect, it } from 'vitest';
import { composedModels } from '../../test/support/composed-models.js';
import { buildModule, readFixture } from '../../test/support/fixtures.js';
import * as torch from '../index.js';
import { pythonFloat } from './module-print.js';

interface StructureCase {
  model?: string;
  kind?: string;
  args: unknown[];
  repr: string;
  stateKeys: string[];
  parameters: string[];
  buffers: string[];
  modules: string[];
}

const cases = readFixture<StructureCase>('nn-structure.json');

describe('composed models against PyTorch', () => {
  for (const example of cases.filter(({ model }) => model)) {
    it(`${example.model}: printed tree, keys and order`, () => {
      torch.tidy(() => {
        const model = composedModels[example.model as string]?.() as torch.nn.Module;
        expect(model.toString()).toBe(example.repr);
        expect(Object.keys(model.stateDict())).toEqual(example.stateKeys);
        expect([...model.namedParameters()].map(([name]) => name)).toEqual(example.parameters);
        expect([...model.namedBuffers()].map(([name]) => name)).toEqual(example.buffers);
        expect([...model.namedModules()].map(([name]) => name)).toEqual(example.modules);
        model.dispose();
      });
    });
  }
});

describe('printed modules against PyTorch', () => {
  for (const { kind, args, repr } of cases.filter((example) => example.kind)) {
    it(repr, () => {
      torch.tidy(() => {
        const module = buildModule(kind as string, args);
        expect(module.toString()).toBe(repr);
        module.dispose();
      });
    });
  }
});

describe('pythonFloat', () => {
  it.each([
    [1, '1.0'],
    [-0.5, '-0.5'],
    [0, '0.0'],
    [1e-4, '0.0001'],
    [1e-5, '1e-05'],
    [1.25e-7, '1.25e-07'],
    [1e16, '1e+16'],
    [1e15, '1000000000000000.0'],
    [Number.POSITIVE_INFINITY, 'inf'],
    [Number.NaN, 'nan'],
  ])('prints %d as %s', (value, text) => {
    expect(pythonFloat(value)).toBe(text);
  });
});
