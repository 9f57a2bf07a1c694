import { describe, expect, it } from 'vitest';
import { Block, Tied } from '../../test/support/composed-models.js';
import * as torch from '../index.js';
import { describeEachDevice, expectIdentical } from '../testing/index.js';
import { Linear, type Module, Sequential } from './index.js';

function errorOf(body: () => unknown): torch.FmoeError {
  try {
    body();
  } catch (error) {
    if (torch.FmoeError.isInstance(error)) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

function copyOf(module: Module): Record<string, torch.Tensor> {
  return Object.fromEntries(Object.entries(module.stateDict()).map(([key, value]) => [key, value.clone()]));
}

describeEachDevice('state dict', (device) => {
  it('goes from one module into another bit for bit', () => {
    torch.tidy(() => {
      const make = () => new Sequential(new Block(), new Linear(4, 2)).to(device);
      const [source, target] = [make(), make()];
      const { weight } = target.at(1) as Linear;
      const result = target.loadStateDict(source.stateDict());
      expect(result).toEqual({ missingKeys: [], unexpectedKeys: [] });
      const [from, to] = [source.stateDict(), target.stateDict()];
      expect(Object.keys(to)).toEqual(Object.keys(from));
      for (const [key, value] of Object.entries(to)) expectIdentical(value, from[key] as torch.Tensor);
      // In place: whoever holds the parameter sees the new values.
      expect((target.at(1) as Linear).weight).toBe(weight);
      expect(weight.requiresGrad && weight.isLeaf).toBe(true);
      source.dispose();
      target.dispose();
    });
  });

  it('converts to the dtype and the device of the module', () => {
    torch.tidy(() => {
      const module = new Linear(2, 2, { device });
      module.loadStateDict({
        weight: torch.tensor(
          [
            [1, 2],
            [3, 4.5],
          ],
          { dtype: 'float64' },
        ),
        bias: torch.tensor([7, 8], { dtype: 'int64' }),
      });
      expect(module.weight.dtype).toBe('float32');
      expect(module.weight.detach().toArray()).toEqual([
        [1, 2],
        [3, 4.5],
      ]);
      expect(module.bias?.detach().toArray()).toEqual([7, 8]);
      module.dispose();
    });
  });

  it('shares memory with the module and carries no history', () => {
    torch.tidy(() => {
      const module = new Linear(2, 2, { device });
      const { weight } = module.stateDict();
      expect(weight?.requiresGrad).toBe(false);
      weight?.fill_(3);
      expect(module.weight.detach().sum().item()).toBe(12);
      expect(module.stateDict({ keepVars: true })['weight']).toBe(module.weight);
      module.dispose();
    });
  });

  it('leaves no tensors behind when loading', () => {
    torch.tidy(() => {
      const module = new Block().to(device);
      const state = copyOf(module);
      const before = torch.memory().tensors;
      module.loadStateDict(state);
      expect(torch.memory().tensors).toBe(before);
      module.dispose();
    });
  });
});

describe('state dict of tied and hidden tensors', () => {
  it('loads a tied parameter under each of its names', () => {
    torch.tidy(() => {
      const model = new Tied();
      const state = copyOf(model);
      state['embed.weight'] = torch.zeros([6, 4]);
      state['out.weight'] = torch.ones([6, 4]);
      model.loadStateDict(state);
      // The later name wins, as both are one tensor.
      expect(model.embed.weight.detach().sum().item()).toBe(24);
      model.dispose();
    });
  });

  it('leaves out buffers that are not persistent', () => {
    torch.tidy(() => {
      const block = new Block();
      expect(block.buffers()).toHaveLength(3);
      expect(Object.keys(block.stateDict())).not.toContain('scratch');
      block.dispose();
    });
  });
});

describe('a state dict that does not fit', () => {
  it('is refused with every missing, unexpected and wrong-shaped key, and nothing is copied', () => {
    torch.tidy(() => {
      const block = new Block();
      const before = copyOf(block);
      const wrong = copyOf(block);
      for (const value of Object.values(wrong)) value.add_(1);
      delete wrong['first.bias'];
      delete wrong['mean'];
      wrong['extra'] = torch.zeros([1]);
      wrong['norm.weight'] = torch.zeros([5]);
      wrong['shift'] = 3 as unknown as torch.Tensor;
      const error = errorOf(() => block.loadStateDict(wrong));
      expect(error.code).toBe('ERR_STATE_DICT');
      expect(error.message).toContain('missing keys (2): mean, first.bias');
      expect(error.message).toContain('unexpected keys (1): extra');
      expect(error.message).toContain('norm.weight: the dict has [5], the module [4]');
      expect(error.message).toContain('shift: expected a Tensor, got 3');
      for (const [key, value] of Object.entries(block.stateDict())) {
        expectIdentical(value, before[key] as torch.Tensor);
      }
      block.dispose();
    });
  });

  it.each([
    [
      'a disposed tensor',
      (tensor: torch.Tensor) => {
        tensor.dispose();
        return tensor;
      },
      "bias: the dict's tensor is disposed",
    ],
    [
      'a tensor without values',
      (tensor: torch.Tensor) => tensor.to('meta'),
      "bias: the dict's tensor is on 'meta'",
    ],
  ])('is refused for %s, and nothing is copied', (_, spoil, message) => {
    torch.tidy(() => {
      const module = new Linear(2, 2);
      const before = copyOf(module);
      const error = errorOf(() =>
        module.loadStateDict({ weight: torch.ones([2, 2]), bias: spoil(torch.ones([2])) }),
      );
      expect(error.code).toBe('ERR_STATE_DICT');
      expect(error.message).toContain(message);
      for (const [key, value] of Object.entries(module.stateDict())) {
        expectIdentical(value, before[key] as torch.Tensor);
      }
      module.dispose();
    });
  });

  it('is loaded as far as it goes when not strict, and the rest is returned', () => {
    torch.tidy(() => {
      const module = new Linear(2, 2);
      const bias = module.bias?.detach().clone() as torch.Tensor;
      const result = module.loadStateDict(
        { weight: torch.ones([2, 2]), more: torch.zeros([1]) },
        { strict: false },
      );
      expect(result).toEqual({ missingKeys: ['bias'], unexpectedKeys: ['more'] });
      expect(module.weight.detach().sum().item()).toBe(4);
      expectIdentical(module.bias?.detach() as torch.Tensor, bias);
      module.dispose();
    });
  });

  it('is refused for a wrong shape even when not strict', () => {
    torch.tidy(() => {
      const module = new Linear(2, 2);
      const state = { weight: torch.ones([2, 3]) };
      const error = errorOf(() => module.loadStateDict(state, { strict: false }));
      expect(error.code).toBe('ERR_STATE_DICT');
      expect(error.message).not.toContain('missing');
      module.dispose();
    });
  });

  it('is refused when it is no object of tensors', () => {
    torch.tidy(() => {
      const module = new Linear(1, 1);
      for (const value of [null, 'state', module.weight] as unknown as Record<string, torch.Tensor>[]) {
        expect(errorOf(() => module.loadStateDict(value)).code).toBe('ERR_STATE_DICT');
      }
      module.dispose();
    });
  });
});
