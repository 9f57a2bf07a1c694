import { type FmoeError, nn, ones, tensor } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { LocalGroup } from '../groups/local-group.js';
import { GradientReducer } from './gradient-reducer.js';

// Many ranks: test/ranks/gradients.ts.
describe('GradientReducer of one process', () => {
  const group = new LocalGroup();

  it.each([null, group])('divides and leaves missing gradients missing, with the group %s', (of) => {
    const used = new nn.Parameter(tensor([1, 2]));
    const unused = new nn.Parameter(tensor([3]));
    const reducer = new GradientReducer([{ parameters: [used, unused], group: of, divisor: 4 }], {
      overlap: true,
    });
    for (let step = 0; step < 3; step++) {
      used.grad = null;
      used.mul(2).sum().backward();
      reducer.finish();
      expect(used.grad!.toArray()).toEqual([0.5, 0.5]);
      expect(unused.grad).toBeNull();
    }
    reducer.dispose();
  });

  it.each([
    ['a bucket without parameters', [], /a bucket has no parameters/],
    [
      'parameters of two dtypes',
      [new nn.Parameter(ones([2])), new nn.Parameter(ones([2], { dtype: 'float64' }))],
      /must have one dtype and be on one device/,
    ],
    ['a parameter that does not learn', [ones([2])], /leaf that requires gradients/],
    ['a tensor that is no leaf', [new nn.Parameter(ones([2])).mul(2)], /leaf that requires gradients/],
  ])('refuses %s', (_, parameters, message) => {
    let thrown: unknown;
    try {
      new GradientReducer([{ parameters, group, divisor: 1 }], { overlap: true });
    } catch (error) {
      thrown = error;
    }
    expect((thrown as FmoeError).code).toMatch(/^ERR_(ARGUMENT|DTYPE|DEVICE|AUTOGRAD)$/);
    expect((thrown as FmoeError).message).toMatch(message);
  });

  it('refuses to work after its disposal', () => {
    const reducer = new GradientReducer([]);
    reducer.finish();
    reducer.dispose();
    expect(() => reducer.finish()).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });
});
