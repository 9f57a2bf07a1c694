import { describe, expect, it } from 'vitest';
import { describeValue } from './describe.js';
import { readNativeError } from './dispatch/native-errors.js';
import * as torch from './index.js';

const { FmoeError } = torch;
const x = (shape: number[] = [2, 3], dtype: torch.DType = 'float32') => torch.zeros(shape, { dtype });
const index = (...values: number[]) => torch.tensor(values, { dtype: 'int64' });

function caught(body: () => unknown): torch.FmoeError {
  return torch.tidy(() => {
    try {
      body();
    } catch (error) {
      expect(FmoeError.isInstance(error), String(error)).toBe(true);
      return error as torch.FmoeError;
    }
    throw new Error('nothing was thrown');
  });
}

describe('libtorch says what was wrong, and the code says it too', () => {
  const cases: [torch.FmoeErrorCode, () => unknown][] = [
    ['ERR_SHAPE', () => x().add(x([4]))],
    ['ERR_SHAPE', () => x().matmul(x([5, 1]))],
    ['ERR_SHAPE', () => x([2]).mm(x())],
    ['ERR_SHAPE', () => torch.cat([x([2]), x([2, 2])])],
    ['ERR_SHAPE', () => torch.cat([])],
    ['ERR_SHAPE', () => torch.stack([])],
    ['ERR_SHAPE', () => torch.stack([x(), x([2])])],
    ['ERR_SHAPE', () => x().reshape([4])],
    ['ERR_SHAPE', () => x().reshape([-1, -1])],
    ['ERR_SHAPE', () => x().t().view([6])],
    ['ERR_SHAPE', () => x([3]).expand([4])],
    ['ERR_SHAPE', () => x().sum([0, 0])],
    ['ERR_SHAPE', () => x().narrow(0, 1, 7)],
    ['ERR_SHAPE', () => x().narrow(0, 0, -1)],
    ['ERR_SHAPE', () => x().permute([0])],
    ['ERR_SHAPE', () => x([2]).add_(x([3, 2]))],
    ['ERR_SHAPE', () => x([2, 2, 2]).t()],
    ['ERR_SHAPE', () => torch.einsum('ij,jk->ik', [x(), x()])],
    ['ERR_SHAPE', () => x().gather(0, index(0))],
    ['ERR_SHAPE', () => torch.layerNorm(x(), [4])],
    ['ERR_SHAPE', () => torch.conv2d(x(), x())],
    ['ERR_INDEX', () => x([]).unbind()],
    ['ERR_SHAPE', () => x([0]).max()],
    ['ERR_SHAPE', () => torch.linalgInv(x())],
    ['ERR_SHAPE', () => torch.zeros([2 ** 52, 2 ** 52])],
    ['ERR_INDEX', () => x().sum([2])],
    ['ERR_INDEX', () => x().softmax(2)],
    ['ERR_INDEX', () => x().transpose(0, 2)],
    ['ERR_INDEX', () => x().squeeze(3)],
    ['ERR_INDEX', () => x().select(0, 5)],
    ['ERR_INDEX', () => x().indexSelect(0, index(2))],
    ['ERR_INDEX', () => x([3]).gather(0, index(7))],
    ['ERR_INDEX', () => x([3]).scatter(0, index(9), x([1]))],
    ['ERR_INDEX', () => torch.embedding(x(), index(-1))],
    ['ERR_INDEX', () => torch.nllLoss(x(), index(0, 5))],
    ['ERR_INDEX', () => torch.cat([x()], 2)],
    ['ERR_DTYPE', () => x([2, 2]).matmul(x([2, 2], 'float64'))],
    ['ERR_DTYPE', () => x([2], 'int64').softmax(0)],
    ['ERR_DTYPE', () => x([2], 'int64').mean()],
    ['ERR_DTYPE', () => x([2], 'bool').sub(x([2], 'bool'))],
    ['ERR_DTYPE', () => x([2], 'bool').neg()],
    ['ERR_DTYPE', () => x([2]).bitwiseNot()],
    ['ERR_DTYPE', () => x([2], 'int64').add_(1.5)],
    ['ERR_DTYPE', () => x().indexSelect(0, x([1]))],
    ['ERR_DTYPE', () => torch.embedding(x(), x([1]))],
    ['ERR_DTYPE', () => x().gather(0, x([1, 1], 'int16'))],
    ['ERR_DTYPE', () => x().maskedFill(x(), 0)],
    ['ERR_DTYPE', () => torch.where(x(), x(), x())],
    ['ERR_DTYPE', () => x([2]).dot(x([2], 'float64'))],
    ['ERR_DTYPE', () => torch.oneHot(x([1]), 3)],
    ['ERR_DEVICE', () => x().add(x().to('meta'))],
    ['ERR_DEVICE', () => x().to('cuda:99')],
    ['ERR_NOT_IMPLEMENTED', () => x([1]).to('meta').item()],
    ['ERR_NOT_IMPLEMENTED', () => x().to('meta').data()],
    ['ERR_AUTOGRAD', () => x().sum().backward()],
    ['ERR_AUTOGRAD', () => x().requiresGrad_().add_(1)],
    ['ERR_ARGUMENT', () => torch.dropout(x(), 1.5, true)],
    ['ERR_ARGUMENT', () => torch.gelu(x(), { approximate: 'erf' })],
    ['ERR_ARGUMENT', () => x().div(x(), { roundingMode: 'up' })],
    ['ERR_ARGUMENT', () => x().repeatInterleave(-1)],
    ['ERR_ARGUMENT', () => x().clamp()],
    ['ERR_ARGUMENT', () => x().bernoulli_(7)],
    [
      'ERR_OUT_OF_MEMORY',
      () =>
        x([1])
          .expand([2 ** 45])
          .clone(),
    ],
    ['ERR_RUNTIME', () => torch.linalgInv(x([2, 2]))],
    ['ERR_RUNTIME', () => torch.linalgCholesky(x([2, 2]))],
  ];
  it.each(cases)('%s %s', (code, body) => {
    const error = caught(body);
    expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
    expect(error.message.length).toBeLessThan(600);
    expect(error.message).not.toMatch(/torch\.compile|Exception raised from|\/pytorch\//);
  });
});

describe('messages that only a machine with a GPU gives', () => {
  const thrown = (code: string, message: string): Error =>
    Object.assign(new Error(message), { code: `native:${code}` });
  it.each([
    [
      'ERR_OUT_OF_MEMORY',
      'CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 12.00 GiB is free.',
    ],
    [
      'ERR_DEVICE',
      'Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!',
    ],
    ['ERR_DEVICE', 'CUDA error: invalid device ordinal'],
    ['ERR_DEVICE', 'Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU'],
    ['ERR_RUNTIME', 'CUDA error: device-side assert triggered'],
    ['ERR_RUNTIME', 'CUDA error: an illegal memory access was encountered'],
    [
      'ERR_RUNTIME',
      'x INTERNAL ASSERT FAILED at "/pytorch/aten/src/x.cpp":1, please report a bug to PyTorch. shape',
    ],
  ])('%s: %s', (code, message) => {
    expect(readNativeError(thrown('ERR_RUNTIME', message))).toMatchObject({ code });
  });

  it('leaves errors alone that are not native', () => {
    for (const error of [
      new Error('x'),
      thrown('X', 'y').message,
      Object.assign(new Error('x'), { code: 'ERR_SHAPE' }),
      null,
      undefined,
      5,
    ]) {
      expect(readNativeError(error)).toBeUndefined();
    }
  });
});

describe('an error tells', () => {
  it('the operator, and shapes, dtypes and devices of the operands', () => {
    const error = caught(() => x().add(x([4], 'int64')));
    expect(error).toMatchObject({
      name: 'FmoeError',
      code: 'ERR_SHAPE',
      op: 'aten::add.Tensor',
      shapes: [[2, 3], [4]],
      dtypes: ['float32', 'int64'],
      devices: ['cpu', 'cpu'],
    });
    expect(error.message).toBe(
      'aten::add.Tensor: The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1 ' +
        '(arguments: float32[2, 3], int64[4])',
    );
    expect(error.cause).toBeInstanceOf(Error);
    expect(error.stack).toMatch(/errors\.test\.ts/);
  });

  it('which of the arguments was disposed, also in a list', () => {
    const dead = () => {
      const tensor = x();
      tensor.dispose();
      return tensor;
    };
    expect(caught(() => dead().add(x()))).toMatchObject({ code: 'ERR_DISPOSED', argument: 'self' });
    expect(caught(() => x().add(dead()))).toMatchObject({ code: 'ERR_DISPOSED', argument: 'other' });
    expect(caught(() => torch.cat([x(), dead()]))).toMatchObject({
      code: 'ERR_DISPOSED',
      argument: 'tensors',
    });
    expect(caught(() => torch.addmm(x(), x(), x(), { beta: 1 }))).toMatchObject({ code: 'ERR_SHAPE' });
    expect(caught(() => torch.op('aten::index.Tensor')(x(), [null, dead()]))).toMatchObject({
      argument: 'indices',
    });
    expect(caught(() => torch.op('aten::relu')({ self: dead() }))).toMatchObject({ argument: 'self' });
  });

  it('the argument that could not be read', () => {
    expect(caught(() => torch.op('aten::softmax.int')(x(), 'a'))).toMatchObject({
      argument: 'dim',
      op: 'aten::softmax.int',
    });
    expect(caught(() => torch.op('aten::sum')(x(), 'float31'))).toMatchObject({
      argument: 'dtype',
      code: 'ERR_DTYPE',
    });
  });

  it('the operator and the sizes when memory is short', () => {
    const error = caught(() => torch.ones([2 ** 24]).outer(torch.ones([2 ** 24])));
    expect(error).toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
      op: 'aten::outer',
      shapes: [[2 ** 24], [2 ** 24]],
    });
    expect(error.message).toMatch(
      /aten::outer.*1125899906842624 bytes.*float32\[16777216\], float32\[16777216\]/,
    );
    expect(torch.tidy(() => torch.ones([2]).sum().item())).toBe(2);
  });

  it('that it is one, across copies of the package', () => {
    const foreign = Object.create(Error.prototype, {
      [Symbol.for('@fmoe/torch.FmoeError')]: { value: true },
    });
    expect(FmoeError.isInstance(foreign)).toBe(true);
    expect([new Error('x'), null, undefined, 'ERR_SHAPE', {}].map(FmoeError.isInstance)).toEqual([
      false,
      false,
      false,
      false,
      false,
    ]);
    const plain = new FmoeError('ERR_FILE', 'text');
    expect([plain.name, plain.code, plain.message, 'op' in plain, plain.cause]).toEqual([
      'FmoeError',
      'ERR_FILE',
      'text',
      false,
      undefined,
    ]);
  });
});

describe('describeValue', () => {
  it.each([
    [5, '5'],
    [-0.5, '-0.5'],
    [5n, '5n'],
    [null, 'null'],
    [undefined, 'undefined'],
    [Symbol('s'), 'Symbol(s)'],
    ['text', "'text'"],
    ['a'.repeat(100), `'${'a'.repeat(60)}…'`],
    [[1, 'a', [2, 3]], "[1, 'a', an array of 2]"],
    [new Array(100).fill(0), '[0, 0, 0, 0, 0, 0, 0, 0, … 92 more]'],
    [{ a: 1, b: 2 }, 'an object { a, b }'],
    [Object.create(null), 'an object {  }'],
    [new Date(0), 'an object of class Date'],
    [function named() {}, 'the function named'],
    [() => {}, 'the function (anonymous)'],
  ])('%#', (value, text) => {
    expect(describeValue(value)).toBe(text);
  });

  it('knows tensors, dead or alive', () => {
    torch.tidy(() => {
      const tensor = x();
      expect(describeValue(tensor)).toBe('a float32 tensor [2, 3]');
      tensor.dispose();
      expect(describeValue([tensor])).toBe('[a disposed tensor]');
    });
  });
});
