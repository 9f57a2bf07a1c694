/** The router's logits against products in float64. */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { routerLogits } from '../../src/router-logits.js';
import { expectInside, expectSums, itInRandomCases } from '../random-cases.js';
import { roundoff } from '../support.js';

/** In bfloat16 on a GPU a gradient of the logits goes into the products as two bfloat16. */
const splitError = 2 ** -17;

describeEachDevice("router's logits", (device) => {
  itInRandomCases(
    'are the exact ones rounded to float32, whatever dtype the router has, and so are their gradients',
    device,
    (one) => {
      const { tokens, experts, dtype } = one;
      const width = one.width();
      const x = one.normal([tokens, width]);
      const otherDtype = one.pick([true, true, false]) ? dtype : 'float32';
      const weight = one.normal([experts, width], otherDtype);
      const bias = one.pick([true, false]) ? one.normal([experts], otherDtype) : null;
      const leaves = bias ? [x, weight, bias] : [x, weight];
      const logits = routerLogits(x, weight, bias);
      expect(logits.dtype).toBe(dtype === 'float64' ? 'float64' : 'float32');
      const upstream = one.normal([tokens, experts], logits.dtype).detach();
      const grads = torch.grad([logits], leaves, { gradOutputs: [upstream] }) as torch.Tensor[];

      const products = (of: (t: torch.Tensor) => torch.Tensor) => {
        const [a, w, b, g] = [x, weight, bias ?? torch.zeros([experts], { device }), upstream].map((t) =>
          of(t.detach().double()),
        ) as [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor];
        return [a.matmul(w.t()).add(b), g.matmul(w), g.t().matmul(a), g.sum(0)];
      };
      const exact = products((t) => t);
      const size = products((t) => t.abs());
      const lengths = [width + 1, experts, tokens, tokens];
      [logits, ...grads].forEach((actual, i) => {
        const name = ['logits', 'x.grad', 'weight.grad', 'bias.grad'][i]!;
        const isSplit = device === 'cuda' && dtype === 'bfloat16' && otherDtype === 'bfloat16';
        if (!isSplit || i === 0 || i === 3) {
          expectSums(actual, exact[i]!, size[i]!, lengths[i]!, name);
          return;
        }
        const before = size[i]!.mul(splitError + roundoff['float32']! * (2 * lengths[i]! + 2));
        const bound = exact[i]!.abs().add(before).mul(roundoff['bfloat16']!).add(before);
        expectInside(actual, exact[i]!, bound, name);
      });
    },
  );

  it('are the same bits every time, forward and backward', () => {
    torch.tidy(() => {
      torch.manualSeed(1);
      const make = (shape: number[]) => torch.randn(shape).to({ dtype: 'bfloat16', device }).requiresGrad_();
      const leaves = [make([513, 72]), make([9, 72]), make([9])] as const;
      const run = () => {
        const logits = routerLogits(...leaves);
        return [logits, ...(torch.grad([logits.square().sum()], leaves) as torch.Tensor[])];
      };
      const first = run();
      for (let repeat = 0; repeat < 20; repeat++) {
        run().forEach((again, i) => {
          expect(again.equal(first[i]!)).toBe(true);
        });
      }
    });
  });

  it('have first and second derivatives', () => {
    const make = (shape: number[]) => torch.randn(shape, { dtype: 'float64', device }).requiresGrad_();
    torch.tidy(() => {
      const inputs = [make([4, 3]), make([5, 3]), make([5])] as const;
      const cubed = (...[x, weight, bias]: torch.Tensor[]) => routerLogits(x!, weight!, bias!).pow(3);
      const firstDerivatives = (...leaves: torch.Tensor[]) =>
        torch.enableGrad(() =>
          torch.grad([cubed(...leaves).sum()], leaves, { createGraph: true }),
        ) as torch.Tensor[];
      torch.gradcheck(cubed, inputs);
      torch.gradcheck(firstDerivatives, inputs);
    });
  });

  it('are in float32 under autocast too', () => {
    torch.tidy(() => {
      const [x, weight] = [torch.randn([4, 8], { device }), torch.randn([3, 8], { device })];
      const plain = routerLogits(x, weight);
      const under = torch.autocast({ device, dtype: 'bfloat16' }, () => routerLogits(x, weight));
      expect(under.dtype).toBe('float32');
      expect(under.equal(plain)).toBe(true);
    });
  });

  it.each([
    ['another width', [4, 8], [3, 7], [3], 'D'],
    ['another number of experts', [4, 8], [3, 8], [4], 'N'],
    ['a vector', [8], [3, 8], [3], 'x'],
  ] as const)('refuse %s', (_, x, weight, bias, named) => {
    torch.tidy(() => {
      const zeros = (shape: readonly number[]) => torch.zeros([...shape], { device });
      expect(() => routerLogits(zeros(x), zeros(weight), zeros(bias))).toThrow(
        expect.objectContaining({ code: 'ERR_SHAPE', message: expect.stringContaining(named) }),
      );
    });
  });
});
