import { describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { describeEachDevice, expectAllClose } from '../testing/index.js';

const float = torch.dtypes.filter(torch.isFloatingPoint);

describeEachDevice('a tensor', (device) => {
  const where = device === 'cpu' ? 'cpu' : 'cuda:0';

  it('knows its shape, strides, dtype and device', () => {
    torch.tidy(() => {
      const x = torch.zeros([2, 3, 4], { dtype: 'int16', device });
      expect([x.shape, x.size(), x.stride()]).toEqual([
        [2, 3, 4],
        [2, 3, 4],
        [12, 4, 1],
      ]);
      expect([x.ndim, x.numel(), x.size(1), x.size(-1)]).toEqual([3, 24, 3, 4]);
      expect([x.dtype, x.device]).toEqual(['int16', where]);
      expect([x.isContiguous(), x.transpose(0, 2).isContiguous()]).toEqual([true, false]);
      expect(x.transpose(0, 2).stride()).toEqual([1, 4, 12]);
      const scalar = torch.zeros([], { device });
      expect([scalar.shape, scalar.ndim, scalar.numel(), scalar.stride()]).toEqual([[], 0, 1, []]);
      const none = torch.zeros([3, 0, 2], { device });
      expect([none.numel(), none.toArray()]).toEqual([0, [[], [], []]]);
    });
  });

  it('shares memory with its views and with nothing else', () => {
    torch.tidy(() => {
      const x = torch.arange(6, { device }).reshape([2, 3]);
      const views = [
        x.t(),
        x.view([6]),
        x.narrow(1, 0, 2),
        x.select(0, 1),
        x.expand([4, 2, 3]),
        x.detach(),
        x.T,
      ];
      const copies = [x.clone(), x.add(0), x.repeat([1, 1])];
      x.zero_();
      for (const view of views) expect(view.abs().sum().item()).toBe(0);
      for (const copy of copies) expect(copy.sum().item()).toBe(15);
    });
  });

  it('broadcasts', () => {
    torch.tidy(() => {
      const [rows, columns] = [
        [1, 2, 3],
        [10, 20],
      ];
      const sum = torch.tensor([rows], { device }).add(
        torch.tensor(
          columns.map((c) => [c]),
          { device },
        ),
      );
      expect(sum.toArray()).toEqual(columns.map((c) => rows.map((r) => r + c)));
    });
  });

  it('follows a shape that changes in place', () => {
    torch.tidy(() => {
      const x = torch.zeros([2, 1, 3], { device });
      expect(x.shape).toEqual([2, 1, 3]);
      expect(x.squeeze_(1).shape).toEqual([2, 3]);
      expect(x.t_().shape).toEqual([3, 2]);
      expect(x.unsqueeze_(0).numel()).toBe(6);
      expect(x.shape).toEqual([1, 3, 2]);
    });
  });

  it.each(torch.dtypes)('converts from and to %s', (dtype) => {
    torch.tidy(() => {
      const x = torch.tensor([0, 1, 3], { dtype: 'float32', device });
      const y = x.to(dtype);
      expect([y.dtype, y.device]).toEqual([dtype, where]);
      expect(y.double().toArray()).toEqual(dtype === 'bool' ? [0, 1, 1] : [0, 1, 3]);
      expect(y.to(dtype)).toBe(y);
      expect(y.to({ dtype, copy: true })).not.toBe(y);
    });
  });

  it('goes by short names, and stays itself where nothing changes', () => {
    torch.tidy(() => {
      const x = torch.zeros([1], { device });
      expect([x.float(), x.to(where), x.to({}), x.to(device)]).toEqual([x, x, x, x]);
      expect([x.double().dtype, x.half().dtype, x.bfloat16().dtype]).toEqual([
        'float64',
        'float16',
        'bfloat16',
      ]);
      expect([x.long().dtype, x.int().dtype, x.bool().dtype]).toEqual(['int64', 'int32', 'bool']);
      expect(x.cpu().device).toBe('cpu');
    });
  });

  it('gives its only value', async () => {
    const scope = torch.scope();
    expect(torch.tensor([[2.5]], { device }).item()).toBe(2.5);
    expect(torch.tensor(7, { dtype: 'int64', device }).item()).toBe(7);
    expect(torch.tensor([true], { dtype: 'bool', device }).item()).toBe(1);
    expect(await torch.tensor([1.5], { dtype: 'bfloat16', device }).itemAsync()).toBe(1.5);
    expect(await torch.tensor([[3]], { dtype: 'int64', device }).itemAsync()).toBe(3);
    scope.dispose();
  });

  it('gives nested arrays, now and later', async () => {
    const scope = torch.scope();
    const x = torch.arange(24, { device }).reshape([2, 3, 4]).transpose(0, 2);
    const expected = Array.from({ length: 4 }, (_, k) =>
      Array.from({ length: 3 }, (_, j) => Array.from({ length: 2 }, (_, i) => 12 * i + 4 * j + k)),
    );
    expect(x.toArray()).toEqual(expected);
    expect(await x.toArrayAsync()).toEqual(expected);
    expect(torch.tensor([1, 0], { dtype: 'bool', device }).toArray()).toEqual([true, false]);
    expect(torch.tensor([[2n ** 62n]], { dtype: 'int64', device }).toArray()).toEqual([[2n ** 62n]]);
    expect(torch.tensor(5, { device }).toArray()).toBe(5);
    scope.dispose();
  });

  it('carries gradients where they are asked for', () => {
    torch.tidy(() => {
      const x = torch.ones([2], { device });
      expect([x.requiresGrad, x.isLeaf, x.gradFn, x.grad]).toEqual([false, true, null, null]);
      x.requiresGrad = true;
      const y = x.mul(3);
      expect([y.requiresGrad, y.isLeaf, y.gradFn]).toEqual([
        true,
        false,
        expect.stringMatching(/^MulBackward/),
      ]);
      y.retainGrad();
      y.sum().backward();
      expectAllClose(x.grad!, [3, 3]);
      expectAllClose(y.grad!, [1, 1]);
      x.grad = torch.zeros([2], { device });
      expectAllClose(x.grad!, [0, 0]);
      x.grad = null;
      expect(x.grad).toBeNull();
      expect(y.detach().requiresGrad).toBe(false);
      expect(x.requiresGrad_(false)).toBe(x);
    });
  });

  it('is freed by dispose, and its views live on', () => {
    torch.tidy(() => {
      const x = torch.arange(4, { device });
      const view = x.narrow(0, 1, 2);
      x.dispose();
      x.dispose();
      expect([x.isDisposed, view.isDisposed, view.toArray()]).toEqual([true, false, [1, 2]]);
      view[Symbol.dispose]();
      expect(view.isDisposed).toBe(true);
    });
  });
});

describe('handles', () => {
  it('of a freed tensor never name the next one in its place', () => {
    torch.tidy(() => {
      const dead = Array.from({ length: 100 }, () => torch.zeros([1]));
      for (const tensor of dead) tensor.dispose();
      const alive = Array.from({ length: 100 }, (_, i) => torch.full([1], i));
      for (const tensor of dead) expect(() => tensor.add(1)).toThrow(/was disposed/);
      expect(alive.map((tensor) => tensor.item())).toEqual(Array.from({ length: 100 }, (_, i) => i));
    });
  });

  it('are refused when they name nothing', () => {
    for (const handle of [0, -1, Number.NaN, 1e300, 2 ** 52, 0.5]) {
      expect(native().isLive(handle)).toBe(false);
      expect(() => native().shape(handle)).toThrow(/disposed/);
    }
  });
});

describe('a tensor refuses', () => {
  const x = () => torch.zeros([2]);
  const disposed = () => {
    const tensor = x();
    tensor.dispose();
    return tensor;
  };
  refuses(
    [
      ['item of many', 'ERR_SHAPE', /one element.*2 in \[2\]/, () => x().item()],
      ['item of none', 'ERR_SHAPE', /0 in \[0\]/, () => torch.zeros([0]).item()],
      [
        'item beyond a number',
        'ERR_DTYPE',
        /beyond/,
        () => torch.tensor([2n ** 60n], { dtype: 'int64' }).item(),
      ],
      ['item of a complex number', 'ERR_DTYPE', /complex/, () => torch.viewAsComplex(x()).item()],
      ['data of complex numbers', 'ERR_DTYPE', /complex64/, () => torch.viewAsComplex(x()).data()],
      ['size of a dimension that is not there', 'ERR_INDEX', /1 dimension/, () => x().size(1)],
      ['size of half a dimension', 'ERR_INDEX', /0.5/, () => x().size(0.5)],
      [
        'a target that is neither dtype nor device',
        'ERR_ARGUMENT',
        /'float23'.*float32.*device/,
        () => x().to('float23'),
      ],
      ['a GPU that is not there', 'ERR_DEVICE', /'cuda:99'/, () => x().to('cuda:99')],
      ['null as a target', 'ERR_ARGUMENT', /null/, () => x().to(wrong(null))],
      ['a number as a target', 'ERR_ARGUMENT', /5/, () => x().to(wrong(5))],
      ['a misspelt option', 'ERR_ARGUMENT', /'dtyp'/, () => x().to(wrong({ dtyp: 'float64' }))],
      ['gradients of integers', 'ERR_DTYPE', /floating point/, () => x().long().requiresGrad_()],
      ['a flag that is no flag', 'ERR_ARGUMENT', /'yes'/, () => x().requiresGrad_(wrong('yes'))],
      [
        'clearing the flag off a leaf',
        'ERR_AUTOGRAD',
        /leaf/,
        () => x().requiresGrad_().mul(1).requiresGrad_(false),
      ],
      [
        'a gradient of another shape',
        'ERR_AUTOGRAD',
        /\[2\], not \[3\]/,
        () => {
          x().grad = torch.zeros([3]);
        },
      ],
      [
        'a gradient of another dtype',
        'ERR_DTYPE',
        /Float, not Double/,
        () => {
          x().grad = x().double();
        },
      ],
      [
        'a gradient that is no tensor',
        'ERR_ARGUMENT',
        /got 5/,
        () => {
          x().grad = wrong(5);
        },
      ],
      [
        'a gradient that is undefined',
        'ERR_ARGUMENT',
        /undefined/,
        () => {
          x().grad = wrong(undefined);
        },
      ],
      ['retaining what has no gradient', 'ERR_AUTOGRAD', /requiresGrad/, () => x().retainGrad()],
      ...(['shape', 'dtype', 'device', 'requiresGrad', 'grad', 'isLeaf', 'gradFn', 'T', 'ndim'] as const).map(
        (name) =>
          [`${name} of the disposed`, 'ERR_DISPOSED', /was disposed/, () => disposed()[name]] as const,
      ),
      ...(
        [
          'item',
          'data',
          'toArray',
          'stride',
          'isContiguous',
          'detach',
          'numel',
          'retainGrad',
          'clone',
          'double',
        ] as const
      ).map(
        (name) =>
          [
            `${name}() of the disposed`,
            'ERR_DISPOSED',
            /was disposed/,
            () => (disposed()[name] as () => unknown)(),
          ] as const,
      ),
    ].map((entry) => [...entry] as never),
  );

  it('itemAsync and toArrayAsync of the disposed', async () => {
    await expect(disposed().itemAsync()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await expect(disposed().toArrayAsync()).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('precision', () => {
  it.each(float)('%s holds what its format holds', (dtype) => {
    // Mantissa bits by IEEE 754 and by the definition of bfloat16.
    const mantissa = { float64: 52, float32: 23, float16: 10, bfloat16: 7 }[dtype as 'float32'];
    torch.tidy(() => {
      const next = 1 + 2 ** -mantissa;
      expect(torch.tensor([next, 1 + 2 ** -(mantissa + 2)], { dtype }).toArray()).toEqual([next, 1]);
    });
  });
});
