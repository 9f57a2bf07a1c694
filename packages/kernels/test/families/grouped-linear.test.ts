/** The grouped linear layer against one product for each expert in float64. */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { groupedLinear } from '../../src/grouped-linear.js';
import { expectSums, itInRandomCases } from '../random-cases.js';

describeEachDevice('grouped linear layer', (device) => {
  itInRandomCases(
    'is a linear layer for each expert, zeros in padding rows and gradients of zero for idle experts',
    device,
    (one) => {
      const [inputs, outputs] = [one.width(), one.width()];
      const counts = one.slotsOfExperts().map((slots) => slots.length);
      const ends = [0];
      for (const count of counts) ends.push(ends.at(-1)! + count);
      const x = one.normal([one.ids.length, inputs]);
      const weight = one.normal([one.experts, outputs, inputs]);
      const bias = one.pick([true, false]) ? one.normal([one.experts, outputs]) : null;
      const leaves = bias ? [x, weight, bias] : [x, weight];
      const y = groupedLinear(x, weight, bias, one.indices(ends));
      const upstream = one.normal([one.ids.length, outputs]).detach();
      const grads = torch.grad([y], leaves, { gradOutputs: [upstream] }) as torch.Tensor[];

      const [wideX, wideWeight, wideUpstream] = [x, weight, upstream].map((t) => t.detach().double());
      const wideBias = bias?.detach().double();
      const options = { dtype: 'float64', device } as const;
      const parts = counts.map((count, e) => {
        const [a, w, g] = [
          wideX!.narrow(0, ends[e]!, count),
          wideWeight!.select(0, e),
          wideUpstream!.narrow(0, ends[e]!, count),
        ];
        const b = wideBias?.select(0, e) ?? torch.zeros([outputs], options);
        const both = (of: (t: torch.Tensor) => torch.Tensor) => {
          const [left, matrix, incoming] = [of(a), of(w), of(g)];
          return [
            left.matmul(matrix.t()).add(of(b)),
            incoming.matmul(matrix),
            incoming.t().matmul(left),
            incoming.sum(0),
          ];
        };
        return { exact: both((t) => t), size: both((t) => t.abs()) };
      });
      const padding = one.ids.length - ends.at(-1)!;
      const rest = [outputs, inputs].map((columns) => torch.zeros([padding, columns], options));
      const lengths = [inputs + 1, outputs, Math.max(...counts), Math.max(...counts)];
      [y, ...grads].forEach((actual, i) => {
        const [exact, size] = (['exact', 'size'] as const).map((kind) => {
          const results = parts.map((part) => part[kind][i]!);
          return i < 2 ? torch.cat([...results, rest[i]!], 0) : torch.stack(results);
        });
        expectSums(actual, exact!, size!, lengths[i]!, ['y', 'x.grad', 'weight.grad', 'bias.grad'][i]!);
      });
    },
  );
});
