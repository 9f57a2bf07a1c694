import { describe, expect, it } from 'vitest';
import { refuses } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { expectAllClose } from '../testing/index.js';
import { refusal } from './unsafe-operators.js';

const { op } = torch;
const x = (...shape: number[]) => torch.ones(shape);
const pivots = (...shape: number[]) => torch.ones(shape, { dtype: 'int32' });
const adam = { lr: 0.1, beta1: 0.9, beta2: 0.99, weightDecay: 0, eps: 1e-8, amsgrad: false, maximize: false };
const sgd = {
  weightDecay: 0,
  momentum: 0,
  lr: 0.5,
  dampening: 0,
  nesterov: false,
  maximize: false,
  isFirstStep: false,
};

// Each of these calls ended the process before it was looked at.
describe('calls that would crash libtorch', () => {
  const minimum = -(2n ** 63n);
  refuses([
    [
      'half a step of integers',
      'ERR_ARGUMENT',
      /step 0.5/,
      () => op('aten::arange.start_step')(0, 9, 0.5, 'int64'),
    ],
    [
      'half a step into integers',
      'ERR_ARGUMENT',
      /step 0.5/,
      () => op('aten::arange.start_out')(0, 9, 0.5, { out: torch.zeros([1], { dtype: 'int32' }) }),
    ],
    ['half a step of a range', 'ERR_ARGUMENT', /step 0.5/, () => op('aten::range.step')(0, 9, 0.5, 'int64')],
    [
      'random floats from the last integer on',
      'ERR_ARGUMENT',
      /2\^62/,
      () => op('aten::random_.from')(x(1), 2n ** 63n - 1n, null),
    ],
    [
      'random floats to the first integer',
      'ERR_ARGUMENT',
      /2\^62/,
      () => op('aten::random_.from')(x(1), minimum, minimum),
    ],
    [
      'fewer numbers than tensors',
      'ERR_ARGUMENT',
      /0 numbers for 1/,
      () => op('aten::_foreach_lerp_.ScalarList')([x(1)], [x(1)], []),
    ],
    [
      'pivots of another shape',
      'ERR_SHAPE',
      /\[2, 3\], not \[0\]/,
      () => torch.luUnpack(x(2, 3, 4), pivots(0)),
    ],
    [
      'eigenvalues of NaN',
      'ERR_ARGUMENT',
      /NaN or infinity/,
      () => torch.linalgEigvals(x(3, 3).fill_(Number.NaN)),
    ],
    [
      'eigenvalues of infinity',
      'ERR_ARGUMENT',
      /NaN or infinity/,
      () => torch.linalgEigvals(x(2, 3, 3).fill_(Number.POSITIVE_INFINITY)),
    ],
    [
      'the smallest power',
      'ERR_ARGUMENT',
      /out of range/,
      () => op('aten::linalg_matrix_power')(x(2, 2), minimum),
    ],
    [
      'paddings beyond all sizes',
      'ERR_ARGUMENT',
      /2\^53/,
      () => op('aten::replication_pad2d')(x(2, 3, 4), 2n ** 63n - 1n),
    ],
    [
      'a gradient of another size',
      'ERR_SHAPE',
      /grads \[0\].*float32\[9\]/,
      () => op('aten::_fused_sgd_')([x(9)], [x(2)], [], sgd),
    ],
    [
      'a gradient of another dtype',
      'ERR_SHAPE',
      /grads/,
      () => op('aten::_fused_sgd_')([x(9).double()], [x(9)], [], sgd),
    ],
    [
      'a parameter with gaps',
      'ERR_SHAPE',
      /self \[0\]/,
      () => op('aten::_fused_sgd_')([x(1).expand([9])], [x(9)], [], sgd),
    ],
    [
      'missing moments',
      'ERR_SHAPE',
      /expAvgs has 0/,
      () => op('aten::_fused_adam_')([x(9)], [x(9)], [], [], [], [], adam),
    ],
    [
      'a step without a number',
      'ERR_SHAPE',
      /stateSteps/,
      () => op('aten::_fused_adam_')([x(9)], [x(9)], [x(9)], [x(9)], [], [x(0)], adam),
    ],
    [
      'missing maxima',
      'ERR_SHAPE',
      /maxExpAvgSqs/,
      () => op('aten::_fused_adamw_')([x(9)], [x(9)], [x(9)], [x(9)], [], [x(1)], { ...adam, amsgrad: true }),
    ],
    [
      'missing momenta',
      'ERR_SHAPE',
      /momentumBufferList/,
      () => op('aten::_fused_sgd_')([x(9)], [x(9)], [], { ...sgd, momentum: 0.9 }),
    ],
  ]);
});

describe('the same calls done right', () => {
  it('count in whole and in broken steps', () => {
    torch.tidy(() => {
      expect(op('aten::arange.start_step')(0, 2, 0.5, 'float32').toArray()).toEqual([0, 0.5, 1, 1.5]);
      expect(op('aten::arange.start_step')(0, 9, 4, 'int64').toArray()).toEqual([0n, 4n, 8n]);
      expect(op('aten::arange.start_step')(0, 1, 0.5).toArray()).toEqual([0, 0.5]);
    });
  });

  it('draw over all integers', () => {
    torch.tidy(() => {
      const drawn = op('aten::random_.from')(
        torch.zeros([50], { dtype: 'int64' }),
        -(2n ** 63n),
        null,
      ) as torch.Tensor;
      expect(new Set(drawn.toArray() as bigint[]).size).toBe(50);
    });
  });

  it('solve', () => {
    torch.tidy(() => {
      const matrix = torch.tensor(
        [
          [
            [4, 3],
            [6, 3],
          ],
        ],
        { dtype: 'float64' },
      );
      const [factors, order] = op('aten::linalg_lu_factor')(matrix) as [torch.Tensor, torch.Tensor];
      const [p, l, u] = torch.luUnpack(factors, order);
      expectAllClose(p.matmul(l).matmul(u), matrix);
      const values = torch.viewAsReal(
        torch.linalgEigvals(
          torch.tensor([
            [2, 0],
            [0, 3],
          ]),
        ),
      );
      expect((values.toArray() as number[][]).map(([real]) => real).sort()).toEqual([2, 3]);
      expectAllClose(
        torch.linalgMatrixPower(
          torch.tensor([
            [2, 0],
            [0, 4],
          ]),
          -2,
        ),
        [
          [0.25, 0],
          [0, 1 / 16],
        ],
      );
    });
  });

  it('step', () => {
    torch.tidy(() => {
      const w = x(3);
      op('aten::_fused_sgd_')([w], [torch.tensor([1, 2, 3])], [], sgd);
      expectAllClose(w, [0.5, 0, -0.5]);
      op('aten::_fused_adam_')(
        [w],
        [x(3)],
        [torch.zeros([3])],
        [torch.zeros([3])],
        [],
        [torch.ones([1])],
        adam,
      );
      expectAllClose(w, [0.4, -0.1, -0.6], { atol: 1e-6 });
    });
  });
});

describe('refused operators', () => {
  const refused = native()
    .operatorNames()
    .filter((name) => refusal(name) !== undefined);

  it('say why, and what to use', () => {
    expect(refused.length).toBeGreaterThan(100);
    for (const name of refused) {
      expect(() => op(name), name).toThrow(
        expect.objectContaining({ code: 'ERR_NOT_IMPLEMENTED', op: name }),
      );
    }
  });

  it('are none of those that this package itself calls', () => {
    for (const name of [
      'aten::_foreach_copy_',
      'aten::_fused_adam_',
      'aten::_to_copy',
      'aten::batch_norm',
      'aten::cat',
      'aten::scaled_dot_product_attention',
    ]) {
      expect(refusal(name)).toBeUndefined();
    }
  });
});
