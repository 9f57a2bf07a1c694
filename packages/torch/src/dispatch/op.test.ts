import { describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { native } from '../native/index.js';
import { expectAllClose } from '../testing/index.js';
import { camelCase } from './op.js';

const { op } = torch;
const int64 = (values: number[]) => torch.tensor(values, { dtype: 'int64' });

describe('op', () => {
  it('knows every operator of the dispatcher by its full name', () => {
    const names = native().operatorNames();
    expect(names.length).toBeGreaterThan(3000);
    const schemas = names.map((name) => native().findSchema(name)!);
    expect(schemas.map(({ name, overload }) => (overload === '' ? name : `${name}.${overload}`))).toEqual(
      names,
    );
    expect(new Set(schemas.map(({ id }) => id)).size).toBe(names.length);
  });

  it('describes the schema as the dispatcher states it', () => {
    const { schema } = op('aten::add.Tensor');
    expect(schema).toMatchObject({ name: 'aten::add', overload: 'Tensor', callable: true });
    expect(
      schema.arguments.map(({ name, type, hasDefault, keywordOnly }) => [
        name,
        type,
        hasDefault,
        keywordOnly,
      ]),
    ).toEqual([
      ['self', 'Tensor', false, false],
      ['other', 'Tensor', false, false],
      ['alpha', 'Scalar', true, true],
    ]);
    expect(op('aten::add_.Tensor').schema.returns[0]).toMatchObject({ type: 'Tensor', aliasOf: 0 });
    expect(op('aten::avg_pool2d').schema.arguments[1]).toMatchObject({ name: 'kernel_size', fixedLength: 2 });
  });

  it('is looked up once', () => {
    expect(op('aten::mul.Tensor')).toBe(op('aten::mul.Tensor'));
  });

  it('takes arguments by position and by name, and the rest from the schema', () => {
    torch.tidy(() => {
      const x = int64([1, 2, 3]);
      expect(op('aten::add.Tensor')(x, x, 10).toArray()).toEqual([11n, 22n, 33n]);
      expect(op('aten::add.Tensor')(x, x, { alpha: 10 }).toArray()).toEqual([11n, 22n, 33n]);
      expect(op('aten::add.Tensor')({ self: x, other: x }).toArray()).toEqual([2n, 4n, 6n]);
      expect(op('aten::sum.dim_IntList')(x, null, { keepdim: true }).shape).toEqual([1]);
    });
  });

  it('tells integers from fractions', () => {
    torch.tidy(() => {
      const x = int64([3]);
      expect(op('aten::mul.Scalar')(x, 2).dtype).toBe('int64');
      expect(op('aten::mul.Scalar')(x, 2.5).toArray()).toEqual([7.5]);
      expect(op('aten::mul.Scalar')(x, true).dtype).toBe('int64');
      expect(op('aten::add.Scalar')(x, 2n ** 62n).toArray()).toEqual([2n ** 62n + 3n]);
      // Minus zero has no integer form.
      expect(Object.is(op('aten::add.Scalar')(torch.tensor([-0]), -0).item(), -0)).toBe(true);
      expect(op('aten::add.Scalar')(x, Number.POSITIVE_INFINITY).toArray()).toEqual([
        Number.POSITIVE_INFINITY,
      ]);
    });
  });

  it('takes one number where the schema says int[2], and typed arrays for lists', () => {
    torch.tidy(() => {
      const image = torch.arange(16).reshape([1, 1, 4, 4]);
      const expected = [
        [
          [
            [2.5, 4.5],
            [10.5, 12.5],
          ],
        ],
      ];
      expect(op('aten::avg_pool2d')(image, 2).toArray()).toEqual(expected);
      expect(op('aten::avg_pool2d')(image, [2]).toArray()).toEqual(expected);
      expect(op('aten::avg_pool2d')(image, new Int32Array([2, 2])).toArray()).toEqual(expected);
      expect(op('aten::permute')(torch.zeros([2, 3]), [1n, 0n]).shape).toEqual([3, 2]);
    });
  });

  it('gives back numbers, booleans, several results, lists and nulls', () => {
    torch.tidy(() => {
      const x = torch.tensor([3, 1, 2]);
      expect(op('aten::equal')(x, x)).toBe(true);
      expect(op('aten::item')(torch.tensor([2.5]))).toBe(2.5);
      expect(op('aten::item')(int64([7]))).toBe(7);
      expect(op('aten::item')(torch.tensor([2n ** 60n], { dtype: 'int64' }))).toBe(2n ** 60n);
      expect(op('aten::item')(torch.tensor([1], { dtype: 'bool' }))).toBe(true);
      expect(op('aten::q_scale')).toBeTypeOf('function');
      const [values, indices] = op('aten::sort')(x) as [torch.Tensor, torch.Tensor];
      expect([values.toArray(), indices.toArray()]).toEqual([
        [1, 2, 3],
        [1n, 2n, 0n],
      ]);
      const parts = op('aten::split.Tensor')(torch.arange(5), 2) as torch.Tensor[];
      expect(parts.map((part) => part.toArray())).toEqual([[0, 1], [2, 3], [4]]);
      const y = torch.randn([2, 4]);
      const [, mean, deviation] = op('aten::native_layer_norm')(y, [4], null, null, 1e-5) as torch.Tensor[];
      const backward = op('aten::native_layer_norm_backward');
      const gradients = backward(y, y, [4], mean, deviation, null, null, [true, false, false]) as unknown[];
      expect(gradients[0]).toBeInstanceOf(torch.Tensor);
      expect(gradients.slice(1)).toEqual([null, null]);
    });
  });

  it('gives back the very tensor that it changed', () => {
    torch.tidy(() => {
      const x = torch.ones([2, 3]);
      expect(op('aten::add_.Scalar')(x, 1)).toBe(x);
      expect(op('aten::t_')(x)).toBe(x);
      expect(x.shape).toEqual([3, 2]);
      const out = torch.zeros([2]);
      expect(op('aten::add.out')(torch.ones([2]), torch.ones([2]), { out })).toBe(out);
      expect(out.toArray()).toEqual([2, 2]);
    });
  });

  it('takes lists of tensors with nulls', () => {
    torch.tidy(() => {
      const x = torch.arange(6).reshape([2, 3]);
      expectAllClose(op('aten::index.Tensor')(x, [null, int64([2, 0])]), [
        [2, 0],
        [5, 3],
      ]);
    });
  });

  it('takes no part of a call that failed', () => {
    torch.tidy(() => {
      const before = torch.memory().tensors;
      expect(() => op('aten::split.Tensor')(torch.zeros([2]), -1)).toThrow();
      expect(torch.memory().tensors).toBe(before + 1);
    });
  });
});

describe('camelCase', () => {
  it.each([
    ['index_select', 'indexSelect'],
    ['add_', 'add_'],
    ['bitwise_and_', 'bitwiseAnd_'],
    ['_foreach_add_', '_foreachAdd_'],
    ['linalg_inv_ex', 'linalgInvEx'],
    ['conv2d', 'conv2d'],
  ])('%s is %s', (name, expected) => {
    expect(camelCase(name)).toBe(expected);
  });
});

describe('op refuses', () => {
  const x = () => torch.zeros([2, 3]);
  refuses([
    ['an unknown operator', 'ERR_UNKNOWN_OP', /no operator 'aten::nope'/, () => op('aten::nope')],
    ['a name without its overload', 'ERR_UNKNOWN_OP', /Overloads are part/, () => op('aten::add')],
    ['a name that is no string', 'ERR_ARGUMENT', /op\(\).*got 5/, () => op(wrong(5))],
    ['an inner operator without checks', 'ERR_NOT_IMPLEMENTED', /stack/, () => op('aten::_stack')],
    ['too many arguments', 'ERR_ARGUMENT', /at most 1 .* got 3/, () => op('aten::relu')(x(), 1, 2)],
    ['too few arguments', 'ERR_ARGUMENT', /'mat2' .*is required/, () => op('aten::mm')(x())],
    [
      'an unknown option',
      'ERR_ARGUMENT',
      /unknown option 'foo'.*self/,
      () => op('aten::relu')(x(), { foo: 1 }),
    ],
    [
      'an argument given twice',
      'ERR_ARGUMENT',
      /'self' is given twice/,
      () => op('aten::relu')(x(), { self: x() }),
    ],
    ['null for a tensor', 'ERR_ARGUMENT', /'mat2' .*may not be null/, () => op('aten::mm')(x(), null)],
    [
      'a fraction for an integer',
      'ERR_ARGUMENT',
      /'dim' .*integer, got 1.5/,
      () => op('aten::softmax.int')(x(), 1.5),
    ],
    ['a string for an integer', 'ERR_ARGUMENT', /'dim' .*integer/, () => op('aten::softmax.int')(x(), '1')],
    ['an integer beyond int64', 'ERR_ARGUMENT', /'dim'/, () => op('aten::softmax.int')(x(), 2n ** 64n)],
    ['a list for a number', 'ERR_ARGUMENT', /'dim'/, () => op('aten::softmax.int')(x(), [1])],
    [
      'a wrong length of int[2]',
      'ERR_ARGUMENT',
      /'padding' .*2 numbers, got 3/,
      () => op('aten::reflection_pad1d')(x(), [1, 1, 1]),
    ],
    [
      'none where int[6] needs six',
      'ERR_ARGUMENT',
      /6 numbers, got 0/,
      () => op('aten::reflection_pad3d')(x(), []),
    ],
    [
      'an unknown dtype',
      'ERR_DTYPE',
      /'dtype' must be one of .*'float31'/,
      () => op('aten::sum')(x(), 'float31'),
    ],
    ['an unknown memory format', 'ERR_ARGUMENT', /channels_last/, () => op('aten::contiguous')(x(), 'rows')],
    [
      'a list too long for a call',
      'ERR_ARGUMENT',
      /too many/,
      () => op('aten::zeros')(new Array(200_000).fill(1)),
    ],
    [
      'a step that integers cannot take',
      'ERR_ARGUMENT',
      /step 0.5/,
      () => op('aten::arange.start_step')(0, 10, 0.5, 'int64'),
    ],
  ]);
});
