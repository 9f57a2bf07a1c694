import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../test/refusals.js';
import { decode, type EncodedTensor } from '../test/support/fixtures.js';
import { autocastStates } from './autocast.js';
import * as torch from './index.js';
import { describeEachDevice, expectAllClose } from './testing/index.js';

interface Case {
  dtype: 'bfloat16' | 'float16';
  call: string;
  x: EncodedTensor;
  w: EncodedTensor;
  expected: EncodedTensor;
}

const cases = JSON.parse(
  readFileSync(new URL('../test/fixtures/core-autocast.json', import.meta.url), 'utf8'),
) as Case[];
const { functional } = torch.nn;
const calls: Record<string, (x: torch.Tensor, w: torch.Tensor) => torch.Tensor> = {
  matmul: (x, w) => x.matmul(w),
  mm: (x, w) => x.mm(w),
  addmm: (x, w) => torch.addmm(torch.zeros([3, 8]), x, w),
  linear: (x, w) => functional.linear(x, w),
  softmax: (x, w) => x.mm(w).softmax(-1),
  add: (x) => x.add(x),
  mse: (x, w) => functional.mseLoss(x.mm(w), x),
  gelu: (x, w) => functional.gelu(x.mm(w)),
  layerNorm: (x, w) => functional.layerNorm(x.mm(w), [8]),
};

afterEach(() => {
  expect(autocastStates().map(({ enabled }) => enabled)).toEqual([false, false]);
});

describe('autocast on the CPU computes what PyTorch computes, in the same dtypes', () => {
  it.each(cases)('$call in $dtype', ({ dtype, call, x, w, expected }) => {
    torch.tidy(() => {
      const [input, weight] = [decode(x), decode(w)];
      const result = torch.autocast({ dtype }, () => calls[call]!(input, weight));
      expectAllClose(result, decode(expected));
    });
  });
});

describeEachDevice('autocast', (device) => {
  const product = (): torch.DType => {
    const x = torch.ones([2, 2], { device });
    return x.mm(x).dtype;
  };

  it('ends with its body, nests, and can be switched off inside', () => {
    torch.tidy(() => {
      torch.autocast({ device }, () => {
        expect(product()).toBe('bfloat16');
        torch.autocast({ device, dtype: 'float16' }, () => expect(product()).toBe('float16'));
        torch.autocast({ device, enabled: false }, () => expect(product()).toBe('float32'));
        expect(product()).toBe('bfloat16');
      });
      expect(product()).toBe('float32');
    });
  });

  it('ends when the body throws', () => {
    const error = new Error('mine');
    expect(() =>
      torch.autocast({ device }, () => {
        throw error;
      }),
    ).toThrow(error);
    torch.tidy(() => expect(product()).toBe('float32'));
  });

  it('leaves gradients in the dtype of the parameters', () => {
    torch.tidy(() => {
      const w = torch.ones([4, 4], { device, requiresGrad: true });
      const loss = torch.autocast({ device }, () => w.mm(w).float().sum());
      loss.backward();
      expect([w.grad!.dtype, loss.dtype]).toEqual(['float32', 'float32']);
      expectAllClose(
        w.grad!,
        Array.from({ length: 4 }, () => [8, 8, 8, 8]),
      );
    });
  });

  it('frees what it had cast at its end', () => {
    const w = torch.ones([4, 4], { device, requiresGrad: true });
    const step = () => torch.tidy(() => torch.autocast({ device }, () => w.mm(w).float().sum().backward()));
    step();
    w.grad = null;
    const before = torch.memory().tensors;
    for (let i = 0; i < 10; i++) step();
    expect(torch.memory().tensors).toBe(before);
    w.dispose();
  });
});

describe('autocast refuses', () => {
  refuses([
    ['wide dtypes', 'ERR_DTYPE', /float64/, () => torch.autocast({ dtype: 'float64' }, () => 1)],
    ['unknown devices', 'ERR_DEVICE', /'foo'/, () => torch.autocast({ device: 'foo' }, () => 1)],
    ['devices without autocast', 'ERR_DEVICE', /autocast/, () => torch.autocast({ device: 'meta' }, () => 1)],
    ['null for options', 'ERR_ARGUMENT', /'options'/, () => torch.autocast(wrong(null), () => 1)],
    ['unknown options', 'ERR_ARGUMENT', /'type'/, () => torch.autocast(wrong({ type: 'cpu' }), () => 1)],
    ['what is no function', 'ERR_ARGUMENT', /'body'/, () => torch.autocast({}, wrong(5))],
    ['promises', 'ERR_ARGUMENT', /promise/, () => torch.autocast({}, async () => 1)],
  ]);
});
