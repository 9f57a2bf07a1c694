import { describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { describeEachDevice } from '../testing/index.js';

const input = (shape: number[], device = 'cpu') =>
  torch.rand(shape, { dtype: 'float64', requiresGrad: true, device });

describeEachDevice('gradcheck', (device) => {
  const passing: Record<string, (...inputs: torch.Tensor[]) => torch.Tensor | torch.Tensor[]> = {
    'a product': (x, y) => x!.mul(y!),
    'a matrix product': (x, y) => x!.matmul(y!),
    softmax: (x) => x!.softmax(-1),
    'several outputs': (x, y) => [x!.sin(), y!.cos().sum(), x!.add(y!)],
    'an output without gradient': (x) => [x!.exp(), x!.detach().argmax()],
    'a transposed output': (x) => x!.square().t(),
    'a function of a view': (x) => x!.select(0, 0).exp(),
  };
  it.each(Object.keys(passing))('accepts %s', (name) => {
    torch.tidy(() => {
      torch.gradcheck(passing[name]!, [input([2, 2], device), input([2, 2], device)]);
    });
  });

  it('leaves the inputs as they were, and nothing behind', () => {
    torch.tidy(() => {
      const x = input([3], device);
      const values = x.toArray();
      const before = torch.memory().tensors;
      torch.gradcheck((a) => a.exp(), [x]);
      expect(() => torch.gradcheck((a) => a.mul(a.detach()), [x])).toThrow();
      let calls = 0;
      const failing = (a: torch.Tensor) => {
        if (++calls === 2) throw new Error('in the middle');
        return a.mul(2);
      };
      expect(() => torch.gradcheck(failing, [x])).toThrow('in the middle');
      expect([x.toArray(), x.grad, torch.memory().tensors]).toEqual([values, null, before]);
    });
  });

  it('catches gradients that are wrong by little', () => {
    torch.tidy(() => {
      class Wrong extends torch.autograd.Function {
        static forward(_context: torch.FunctionContext, x: torch.Tensor): torch.Tensor {
          return x.mul(2);
        }
        static backward(_context: torch.FunctionContext, gradient: torch.Tensor): torch.Tensor {
          return gradient.mul(2.01);
        }
      }
      expect(() => torch.gradcheck((x) => Wrong.apply(x), [input([2], device)])).toThrow(
        /output 0\[0\] \/ d input 0\[0\] is 2.01 by backward, (2|1.99)/,
      );
    });
  });
});

describe('gradcheck', () => {
  const x = () => input([2]);
  refuses([
    [
      'inputs without gradients',
      'ERR_AUTOGRAD',
      /no input requires/,
      () => torch.gradcheck((a) => a, [torch.ones([1])]),
    ],
    [
      'float32',
      'ERR_DTYPE',
      /float64.*float32/,
      () => torch.gradcheck((a) => a, [torch.ones([1], { requiresGrad: true })]),
    ],
    ['what is no function', 'ERR_ARGUMENT', /'body'/, () => torch.gradcheck(wrong(5), [x()])],
    [
      'results that are no tensors',
      'ERR_ARGUMENT',
      /result.*\[5\]/,
      () =>
        torch.gradcheck(
          wrong(() => 5),
          [x()],
        ),
    ],
    ['inputs that are no tensors', 'ERR_ARGUMENT', /'inputs'/, () => torch.gradcheck((a) => a, wrong([5]))],
    ['unknown options', 'ERR_ARGUMENT', /'tol'/, () => torch.gradcheck((a) => a, [x()], wrong({ tol: 1 }))],
    [
      'a gradient that is missing',
      'ERR_AUTOGRAD',
      /is 0 by backward/,
      () => torch.gradcheck((a) => a.detach().mul(2), [x()]),
    ],
  ]);
});
