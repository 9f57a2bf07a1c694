import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import * as torch from '../src/index.js';
import { native } from '../src/native/index.js';
import { type Refusal, refuses, wrong } from './refusals.js';

// What a user may do wrong with tensors, operators, gradients, scopes, data, devices and files: each ends in a coded error with
// a message that helps, and the process goes on.

afterEach(() => {
  torch.tidy(() => {
    const x = torch.tensor([1, 2], { requiresGrad: true });
    x.mul(x).sum().backward();
    expect(x.grad!.toArray()).toEqual([2, 4]);
  });
  expect([torch.isGradEnabled(), torch.memory().scopes, native().liveCallbacks()]).toEqual([true, 0, 0]);
});

const x = (shape: number[] = [2, 3], dtype: torch.DType = 'float32') => torch.zeros(shape, { dtype });
const leaf = (shape: number[] = [2, 3]) => torch.ones(shape, { requiresGrad: true });
const index = (...values: number[]) => torch.tensor(values, { dtype: 'int64' });
const dead = () => {
  const tensor = x();
  tensor.dispose();
  return tensor;
};
const { functional } = torch.nn;

describe('shapes', () => {
  refuses([
    [
      'that do not broadcast',
      'ERR_SHAPE',
      /size of tensor a \(3\).*\(5\).*float32\[2, 3\], float32\[2, 5\]/,
      () => x().mul(x([2, 5])),
    ],
    ['that do not multiply', 'ERR_SHAPE', /2x3 and 2x3/, () => x().matmul(x())],
    ['of batches that differ', 'ERR_SHAPE', /batch/i, () => x([2, 3, 4]).bmm(x([3, 4, 5]))],
    [
      'of a sum in place that is larger',
      'ERR_SHAPE',
      /\[3\].*broadcast shape \[2, 3\]/,
      () => x([3]).add_(x()),
    ],
    [
      'with another number of elements',
      'ERR_SHAPE',
      /'\[5\]' is invalid for input of size 6/,
      () => x().reshape([5]),
    ],
    ['with two unknown sizes', 'ERR_SHAPE', /one dimension can be inferred/, () => x().view([-1, -1])],
    ['of a view that needs a copy', 'ERR_SHAPE', /reshape/, () => x().t().view([6])],
    ['to expand to that do not fit', 'ERR_SHAPE', /expanded size/, () => x().expand([2, 4])],
    [
      'to put together that differ',
      'ERR_SHAPE',
      /Sizes of tensors must match/,
      () => torch.cat([x(), x([2, 4])]),
    ],
    ['of nothing to put together', 'ERR_SHAPE', /non-empty/, () => torch.stack([])],
    ['that einsum cannot match', 'ERR_SHAPE', /subscript/, () => torch.einsum('ij,jk->ik', [x(), x()])],
    ['for a norm over other sizes', 'ERR_SHAPE', /normalized_shape/, () => torch.layerNorm(x(), [4])],
    [
      'of a kernel that does not fit',
      'ERR_SHAPE',
      /channels/,
      () => torch.conv2d(x([1, 2, 5, 5]), x([1, 3, 3, 3])),
    ],
    ['of a matrix that is not square', 'ERR_SHAPE', /square/, () => torch.linalgInv(x())],
    [
      'to split into that do not add up',
      'ERR_SHAPE',
      /sum exactly to 3/,
      () => x().splitWithSizes([1, 1], 1),
    ],
    ['of an empty maximum', 'ERR_SHAPE', /max/, () => x([0]).max()],
    [
      'of a module that expects others',
      'ERR_SHAPE',
      /3 features, expected 4/,
      () => new torch.nn.Linear(4, 2).call(x()),
    ],
    [
      'of class probabilities that are missing',
      'ERR_SHAPE',
      /./,
      () => functional.crossEntropy(x([2, 3]), index(0, 1, 2)),
    ],
  ]);
});

describe('dimensions and indices', () => {
  refuses([
    ['beyond the last dimension', 'ERR_INDEX', /\[-2, 1\], but got 2/, () => x().sum([2])],
    ['before the first dimension', 'ERR_INDEX', /but got -3/, () => x().softmax(-3)],
    ['of a dimension twice', 'ERR_SHAPE', /appears multiple times/, () => x().sum([1, 1])],
    ['of a permutation that is none', 'ERR_SHAPE', /permute/, () => x().permute([0])],
    ['beyond the last element', 'ERR_INDEX', /index 2.*\[2, 3\]/, () => x().select(0, 2)],
    ['of at()', 'ERR_INDEX', /at: index 5 is out of range/, () => x().at(5)],
    ['of at() in too many dimensions', 'ERR_INDEX', /too many indices/, () => x().at(0, 0, 0)],
    ['of set()', 'ERR_INDEX', /-4/, () => x().set([0, -4], 1)],
    ['of a range that is too long', 'ERR_SHAPE', /exceeds/, () => x().narrow(1, 2, 2)],
    ['of rows that are not there', 'ERR_INDEX', /out of range/, () => x().indexSelect(0, index(0, 2))],
    ['to gather', 'ERR_INDEX', /index 3 is out of bounds/, () => x([3]).gather(0, index(3))],
    ['to scatter', 'ERR_INDEX', /index -1 is out of bounds/, () => x([3]).scatter(0, index(-1), 1)],
    ['of words that are not in the table', 'ERR_INDEX', /range/, () => torch.embedding(x(), index(2))],
    [
      'of classes that are not there',
      'ERR_INDEX',
      /Target 3 is out of bounds/,
      () => functional.crossEntropy(x(), index(0, 3)),
    ],
    ['that are floats', 'ERR_DTYPE', /int32 or int64/, () => x().indexSelect(0, x([1]))],
    ['that are negative classes', 'ERR_ARGUMENT', /non-negative/, () => index(-1).oneHot(3)],
  ]);
});

describe('dtypes and devices', () => {
  refuses([
    ['that do not multiply', 'ERR_DTYPE', /float != double/, () => x([2, 2]).mm(x([2, 2], 'float64'))],
    ['that a kernel lacks', 'ERR_DTYPE', /not implemented for 'Long'/, () => x([2], 'int64').softmax(0)],
    [
      'of a result that integers cannot hold',
      'ERR_DTYPE',
      /Float can't be cast.*Long/,
      () => x([2], 'int64').add_(0.5),
    ],
    ['of a mean of integers', 'ERR_DTYPE', /mean/, () => x([2], 'int64').mean()],
    ['of booleans to subtract', 'ERR_DTYPE', /two bool tensors/, () => x([2], 'bool').sub(x([2], 'bool'))],
    ['of a mask that is none', 'ERR_DTYPE', /mask/, () => x().maskedFill(x(), 1)],
    ['of integers that are to learn', 'ERR_DTYPE', /floating/, () => x([2], 'int64').requiresGrad_()],
    ['that do not exist', 'ERR_DTYPE', /'float31'/, () => x().sum({ dtype: wrong('float31') })],
    ['to autocast to', 'ERR_DTYPE', /float64/, () => torch.autocast({ dtype: 'float64' }, () => 1)],
    [
      'of a device with a nonsense name',
      'ERR_DEVICE',
      /'quantum:0'/,
      () => torch.zeros([1], { device: 'quantum:0' }),
    ],
    [
      'of a device with a nonsense number',
      'ERR_DEVICE',
      /'cuda:x'/,
      () => torch.zeros([1], { device: 'cuda:x' }),
    ],
    ['of a GPU that is not there', 'ERR_DEVICE', /'cuda:99'/, () => x().to('cuda:99')],
    [
      'of tensors on different devices',
      'ERR_DEVICE',
      /same device.*meta and cpu/,
      () => x().add(x().to('meta')),
    ],
    ['without data to read', 'ERR_NOT_IMPLEMENTED', /no data/, () => x().to('meta').toArray()],
  ]);
});

describe('values', () => {
  refuses([
    ['NaN for an integer', 'ERR_ARGUMENT', /'dim'.*nan/, () => x().cumsum(Number.NaN)],
    ['infinity for an integer', 'ERR_ARGUMENT', /'dim'.*inf/, () => x().cumsum(Number.POSITIVE_INFINITY)],
    ['a fraction for an integer', 'ERR_ARGUMENT', /'dim'.*1\.5/, () => x().cumsum(1.5)],
    ['a bigint beyond int64', 'ERR_ARGUMENT', /int64/, () => x().add(2n ** 63n)],
    ['a string for a tensor', 'ERR_ARGUMENT', /'self'.*got 'x'/, () => torch.relu(wrong('x'))],
    ['a plain object for a tensor', 'ERR_ARGUMENT', /./, () => x().mm(wrong({ shape: [3, 2] }))],
    ['null for a tensor', 'ERR_ARGUMENT', /null/, () => x().mm(wrong(null))],
    ['a tensor for a number', 'ERR_ARGUMENT', /./, () => x().cumsum(wrong(x()))],
    ['a list with a hole for tensors', 'ERR_ARGUMENT', /tensors/, () => torch.cat(wrong([x(), undefined]))],
    ['a tensor for a list of tensors', 'ERR_ARGUMENT', /tensors/, () => torch.cat(wrong(x()))],
    ['a symbol', 'ERR_ARGUMENT', /Symbol\(s\)/, () => x().add(wrong(Symbol('s')))],
    ['a function', 'ERR_ARGUMENT', /function/, () => x().add(wrong(() => 1))],
    ['too many arguments', 'ERR_ARGUMENT', /at most 1/, () => wrong(x()).relu(1, 2)],
    ['an unknown option', 'ERR_ARGUMENT', /'inplace'/, () => wrong(torch).relu(x(), { inplace: true })],
    ['an unknown mode', 'ERR_ARGUMENT', /approximate/, () => torch.gelu(x(), { approximate: 'quick' })],
    ['a probability above 1', 'ERR_ARGUMENT', /between 0 and 1/, () => torch.dropout(x(), 2, true)],
    ['no bounds at all', 'ERR_ARGUMENT', /min.*max/, () => x().clamp()],
    ['a deviation below 0', 'ERR_ARGUMENT', /std/, () => x().normal_(0, -1)],
    ['an operator that is not there', 'ERR_UNKNOWN_OP', /fmoe::nothing/, () => torch.op('fmoe::nothing')],
    [
      'a size in the way of memory',
      'ERR_OUT_OF_MEMORY',
      /aten::zeros.*\[1000000000000\]/,
      () => torch.zeros([1e12]),
    ],
    [
      'operands that grow beyond memory',
      'ERR_OUT_OF_MEMORY',
      /aten::outer.*float32\[4194304\]/,
      () => torch.ones([2 ** 22]).outer(torch.ones([2 ** 22])),
    ],
    ['a repetition beyond memory', 'ERR_OUT_OF_MEMORY', /repeat/, () => x().repeat([1e7, 1e7])],
  ]);
});

describe('disposed tensors', () => {
  const operators = [
    'aten::add.Tensor',
    'aten::addmm',
    'aten::where.self',
    'aten::cat',
    'aten::stack',
    'aten::index.Tensor',
    'aten::layer_norm',
    'aten::native_layer_norm',
    'aten::lerp.Tensor',
    'aten::index_put_',
    'aten::einsum',
    'aten::scaled_dot_product_attention',
    'aten::_foreach_add_.List',
    'aten::embedding',
    'aten::copy_',
    'aten::item',
  ];
  const live: Record<string, () => unknown> = {
    Tensor: x,
    'Tensor[]': () => [x(), x()],
    'Tensor?[]': () => [null, x()],
    Scalar: () => 1,
    str: () => 'ij,ij->ij',
    'SymInt[]': () => [3],
  };
  const cases: Refusal[] = operators.flatMap((name) => {
    const { schema } = torch.op(name);
    const make = (type: string) => live[type.replace(/\?$/, '')]?.();
    return schema.arguments.flatMap(({ name: argument, type }, position): Refusal[] => {
      if (!type.startsWith('Tensor')) return [];
      const value = () => (type.includes('[]') ? [...(make(type) as unknown[]), dead()] : dead());
      const before = () => schema.arguments.slice(0, position).map((other) => make(other.type));
      const after = () =>
        schema.arguments
          .slice(position + 1)
          .map((other) => (other.hasDefault ? undefined : make(other.type)));
      return [
        [
          `as ${argument} of ${name}`,
          'ERR_DISPOSED',
          new RegExp(`${name.replace('.', '\\.')}: .*argument '`),
          () => torch.op(name)(...before(), value(), ...after()),
        ],
      ];
    });
  });
  refuses(cases);
  refuses([
    ['in at()', 'ERR_DISPOSED', /disposed/, () => dead().at(0)],
    ['as an index', 'ERR_DISPOSED', /disposed/, () => x().at(dead())],
    ['as a value of set()', 'ERR_DISPOSED', /disposed/, () => x().set([0], dead())],
    ['as a gradient', 'ERR_DISPOSED', /disposed/, () => leaf().mul(2).backward(dead())],
    ['as an output', 'ERR_DISPOSED', /disposed/, () => torch.grad(dead(), [leaf()])],
    ['as an input', 'ERR_DISPOSED', /disposed/, () => torch.grad(leaf().sum(), [dead()])],
    ['as a parameter', 'ERR_DISPOSED', /disposed/, () => new torch.nn.Parameter(dead())],
    ['to keep', 'ERR_DISPOSED', /disposed/, () => torch.keep([dead()])],
    ['as a random state', 'ERR_DISPOSED', /disposed/, () => torch.setRngState(dead())],
    [
      'to checkpoint',
      'ERR_DISPOSED',
      /disposed/,
      () => torch.checkpoint((a: torch.Tensor) => a.mul(2), dead()),
    ],
    [
      'to save',
      'ERR_DISPOSED',
      /disposed/,
      () => torch.saveSafetensors(join(tmpdir(), 'never.safetensors'), { a: dead() }),
    ],
    [
      'of a scope that has ended',
      'ERR_DISPOSED',
      /scope/,
      () => {
        let escaped: torch.Tensor | undefined;
        torch.tidy(() => {
          escaped = x();
        });
        escaped!.sum();
      },
    ],
  ]);
});

describe('gradients', () => {
  refuses([
    ['of nothing that is recorded', 'ERR_AUTOGRAD', /does not require grad/, () => x().sum().backward()],
    ['of many elements', 'ERR_AUTOGRAD', /scalar/, () => leaf().backward()],
    [
      'a second time',
      'ERR_AUTOGRAD',
      /retainGraph/,
      () => {
        const y = leaf().exp().sum();
        y.backward();
        y.backward();
      },
    ],
    [
      'of another shape',
      'ERR_AUTOGRAD',
      /\[3, 2\].*\[2, 3\]/,
      () =>
        leaf()
          .mul(1)
          .backward(x([3, 2])),
    ],
    [
      'of what was written over',
      'ERR_AUTOGRAD',
      /inplace/,
      () => {
        const a = leaf().mul(2);
        const y = a.sigmoid();
        y.add_(1);
        y.sum().backward();
      },
    ],
    ['of a leaf that is written over', 'ERR_AUTOGRAD', /leaf/, () => leaf().zero_()],
    [
      'set to another shape',
      'ERR_AUTOGRAD',
      /\[2, 3\], not \[2\]/,
      () => {
        leaf().grad = x([2]);
      },
    ],
    ['of inputs without part', 'ERR_AUTOGRAD', /allowUnused/, () => torch.grad(leaf().sum(), [leaf()])],
    [
      'from a hook that returns nonsense',
      'ERR_AUTOGRAD',
      /returned 'x'/,
      () => {
        const a = leaf();
        a.registerHook(wrong(() => 'x'));
        a.sum().backward();
      },
    ],
    ['from a hook that is none', 'ERR_ARGUMENT', /function/, () => leaf().registerHook(wrong(null))],
    [
      'from a forward that returns nonsense',
      'ERR_ARGUMENT',
      /forward must return/,
      () => {
        class Nonsense extends torch.AutogradFunction {
          static forward(): torch.Tensor {
            return wrong('x');
          }
          static backward(): null {
            return null;
          }
        }
        Nonsense.apply();
      },
    ],
    ['clipped without limit', 'ERR_ARGUMENT', /./, () => torch.optim.clipGradNorm_([leaf()], wrong('x'))],
    ['across an await', 'ERR_ARGUMENT', /promise/, () => torch.noGrad(async () => x())],
  ]);
});

describe('scopes and data', () => {
  refuses([
    ['a promise in tidy', 'ERR_ARGUMENT', /scoped/, () => torch.tidy(async () => x())],
    ['a scope inside of tidy', 'ERR_ARGUMENT', /tidy/, () => torch.scope()],
    ['item of many', 'ERR_SHAPE', /one element/, () => x().item()],
    ['ragged arrays', 'ERR_SHAPE', /ragged/, () => torch.tensor([[1, 2], [3]])],
    ['words as numbers', 'ERR_ARGUMENT', /'one'/, () => torch.tensor(wrong(['one']))],
    ['fractions as integers', 'ERR_DTYPE', /0.5/, () => torch.tensor([0.5], { dtype: 'int32' })],
    ['numbers that do not fit', 'ERR_DTYPE', /256.*uint8/, () => torch.tensor([256], { dtype: 'uint8' })],
    [
      'bytes that do not fit a shape',
      'ERR_SHAPE',
      /\[2\]/,
      () => torch.fromTypedArray(new Uint8Array(3), [2]),
    ],
    ['an array that is not typed', 'ERR_ARGUMENT', /typed array/, () => torch.fromTypedArray(wrong([1, 2]))],
    ['a seed that is no integer', 'ERR_ARGUMENT', /'seed'/, () => torch.manualSeed(0.1)],
    ['threads that are none', 'ERR_ARGUMENT', /'threads'/, () => torch.setNumThreads(-1)],
  ]);
});

describe('files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-bad-input-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = (name: string, content: string | Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };
  const header = (text: string, data = 0): Uint8Array => {
    const bytes = Buffer.alloc(8 + text.length + data);
    bytes.writeBigUInt64LE(BigInt(text.length));
    bytes.write(text, 8);
    return bytes;
  };
  refuses([
    ['that are not there', 'ERR_FILE', /nothing/, () => torch.loadSafetensors(join(folder, 'nothing'))],
    ['that are folders', 'ERR_FILE', /./, () => torch.loadSafetensors(folder)],
    ['that are empty', 'ERR_FILE', /empty/, () => torch.loadSafetensors(file('empty', ''))],
    [
      'of another format',
      'ERR_FILE',
      /text/,
      () => torch.loadSafetensors(file('text', 'this is no tensor file, it is text')),
    ],
    [
      'with a header of nonsense',
      'ERR_FILE',
      /nonsense/,
      () => torch.loadSafetensors(file('nonsense', header('{"a": [1, 2'))),
    ],
    [
      'with a size beyond the file',
      'ERR_FILE',
      /beyond/,
      () =>
        torch.loadSafetensors(
          file('beyond', header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', 4)),
        ),
    ],
    [
      'with a shape that does not fit',
      'ERR_FILE',
      /misfit/,
      () =>
        torch.loadSafetensors(
          file('misfit', header('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', 8)),
        ),
    ],
    [
      'that were cut off',
      'ERR_FILE',
      /cut/,
      () => {
        const path = join(folder, 'cut');
        torch.saveSafetensors(path, { a: torch.ones([100]) });
        truncateSync(path, 200);
        torch.loadSafetensors(path);
      },
    ],
    [
      'that cannot be written',
      'ERR_FILE',
      /nowhere/,
      () => torch.saveSafetensors(join(folder, 'nowhere', 'a.safetensors'), { a: x() }),
    ],
    [
      'without tensors in them',
      'ERR_ARGUMENT',
      /./,
      () => torch.saveSafetensors(join(folder, 'a'), { a: wrong(5) }),
    ],
    [
      'with the state of another model',
      'ERR_STATE_DICT',
      /weight/,
      () => new torch.nn.Linear(2, 2).loadStateDict({ bias: x([2]) }),
    ],
    [
      'of libraries that are not there',
      'ERR_FILE',
      /nothing\.so/,
      () => torch.loadLibrary(join(folder, 'nothing.so')),
    ],
    ['of libraries that are none', 'ERR_SETUP', /fake\.so/, () => torch.loadLibrary(file('fake.so', 'x'))],
    [
      'of traces that cannot be written',
      'ERR_FILE',
      /trace/,
      () => torch.profile(join(folder, 'no', 'trace.json'), () => 1),
    ],
  ]);
});

describe('after all that', () => {
  it('nothing is left behind but what tests keep', () => {
    const before = torch.memory().tensors;
    torch.tidy(() => {
      for (const body of [
        () => x().mm(x()),
        () => torch.cat([x(), dead()]),
        () => leaf().add_(1),
        () => x().at(9),
      ]) {
        expect(body).toThrow();
      }
    });
    expect(torch.memory().tensors).toBe(before);
  });
});
