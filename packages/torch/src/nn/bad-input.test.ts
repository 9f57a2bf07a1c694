import { afterEach, describe, expect, it } from 'vitest';
import type { FmoeErrorCode } from '../index.js';
import * as torch from '../index.js';
import { describeEachDevice } from '../testing/index.js';
import * as nn from './index.js';

const { functional: F, init } = nn;

// Each case must end in a coded error; the check after each one shows that the process still computes.
afterEach(() => {
  torch.tidy(() => {
    const linear = new nn.Linear(2, 2);
    expect(linear.call(torch.ones([1, 2])).shape).toEqual([1, 2]);
    linear.dispose();
  });
});

/** What a caller without types could pass. */
// biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
const wrong = (value: unknown): any => value;

function rejects(title: string, code: FmoeErrorCode, message: RegExp, body: () => unknown): void {
  it(`${title}: ${code}`, () => {
    torch.tidy(() => {
      let caught: unknown;
      try {
        body();
      } catch (error) {
        caught = error;
      }
      expect(caught, 'nothing was thrown').toBeDefined();
      expect(torch.FmoeError.isInstance(caught), String(caught)).toBe(true);
      const { code: got, message: text } = caught as torch.FmoeError;
      expect(`${got}: ${text}`).toMatch(new RegExp(`^${code}: `));
      expect(text).toMatch(message);
    });
  });
}

describe('constructors refuse', () => {
  rejects(
    'a negative number of features',
    'ERR_ARGUMENT',
    /Linear: inFeatures .* -3/,
    () => new nn.Linear(-3, 2),
  );
  rejects('a fractional size', 'ERR_ARGUMENT', /outFeatures .* 2\.5/, () => new nn.Linear(3, 2.5));
  rejects(
    'a size that is no number',
    'ERR_ARGUMENT',
    /inFeatures .* '4'/,
    () => new nn.Linear(wrong('4'), 2),
  );
  rejects('an unknown dtype', 'ERR_DTYPE', /float31/, () => new nn.Linear(2, 2, { dtype: wrong('float31') }));
  rejects('an unknown device', 'ERR_DEVICE', /warp/, () => new nn.Linear(2, 2, { device: 'warp' }));
  rejects('integers that are to learn', 'ERR_DTYPE', /int64/, () => new nn.Linear(2, 2, { dtype: 'int64' }));
  rejects(
    'a padding row outside of the table',
    'ERR_ARGUMENT',
    /paddingIdx .* 5/,
    () => new nn.Embedding(5, 2, { paddingIdx: 5 }),
  );
  rejects('a negative table', 'ERR_ARGUMENT', /numEmbeddings/, () => new nn.Embedding(-1, 2));
  rejects('an empty normalized shape', 'ERR_ARGUMENT', /normalizedShape/, () => new nn.LayerNorm([]));
  rejects('a negative normalized shape', 'ERR_ARGUMENT', /normalizedShape/, () => new nn.RMSNorm([4, -1]));
  const unknown: [string, () => unknown][] = [
    ['Linear', () => new nn.Linear(2, 2, wrong({ biass: false }))],
    ['LayerNorm', () => new nn.LayerNorm(2, wrong({ biass: false }))],
    ['RMSNorm', () => new nn.RMSNorm(2, wrong({ biass: false }))],
    ['Embedding', () => new nn.Embedding(2, 2, wrong({ biass: false }))],
    ['MultiheadAttention', () => new nn.MultiheadAttention(2, 1, wrong({ biass: false }))],
    ['ReLU', () => new nn.ReLU(wrong({ biass: false }))],
    ['GELU', () => new nn.GELU(wrong({ biass: false }))],
    ['SiLU', () => new nn.SiLU(wrong({ biass: false }))],
    ['LeakyReLU', () => new nn.LeakyReLU(0.1, wrong({ biass: false }))],
    ['ELU', () => new nn.ELU(1, wrong({ biass: false }))],
    ['Dropout', () => new nn.Dropout(0.5, wrong({ biass: false }))],
    ['CrossEntropyLoss', () => new nn.CrossEntropyLoss(wrong({ biass: false }))],
    ['NLLLoss', () => new nn.NLLLoss(wrong({ biass: false }))],
    ['MSELoss', () => new nn.MSELoss(wrong({ biass: false }))],
    ['HuberLoss', () => new nn.HuberLoss(wrong({ biass: false }))],
    ['BCEWithLogitsLoss', () => new nn.BCEWithLogitsLoss(wrong({ biass: false }))],
    ['KLDivLoss', () => new nn.KLDivLoss(wrong({ biass: false }))],
  ];
  for (const [name, body] of unknown) {
    rejects(
      `an unknown option of ${name}`,
      'ERR_ARGUMENT',
      new RegExp(`${name}: unknown option 'biass'`),
      body,
    );
  }
  rejects('p above 1', 'ERR_ARGUMENT', /Dropout: p .* 1\.5/, () => new nn.Dropout(1.5));
  rejects('p below 0', 'ERR_ARGUMENT', /Dropout: p .* -0\.1/, () => new nn.Dropout(-0.1));
  rejects('p that is not a number', 'ERR_ARGUMENT', /NaN/, () => new nn.Dropout(Number.NaN));
  rejects(
    'an unknown reduction',
    'ERR_ARGUMENT',
    /MSELoss: reduction .*'none', 'mean', 'sum'.*'avg'/,
    () => new nn.MSELoss({ reduction: wrong('avg') }),
  );
  rejects(
    'an unknown GELU formula',
    'ERR_ARGUMENT',
    /'none', 'tanh'/,
    () => new nn.GELU({ approximate: wrong('erf') }),
  );
  rejects('a softmax without dim', 'ERR_ARGUMENT', /Softmax: dim/, () => new (wrong(nn.Softmax))());
  rejects(
    'a parameter of no tensor',
    'ERR_ARGUMENT',
    /must be a Tensor, got \[1, 2\]/,
    () => new nn.Parameter(wrong([1, 2])),
  );
  rejects(
    'a parameter of integers',
    'ERR_DTYPE',
    /floating-point, got int64/,
    () => new nn.Parameter(torch.zeros([2], { dtype: 'int64' })),
  );
  rejects(
    'heads that do not divide the width',
    'ERR_ARGUMENT',
    /multiple/,
    () => new nn.MultiheadAttention(6, 4),
  );
});

describe('modules refuse', () => {
  rejects('a buffer name with a dot', 'ERR_ARGUMENT', /dots/, () =>
    new nn.Module().registerBuffer('a.b', torch.zeros([1])),
  );
  rejects('a taken buffer name', 'ERR_ARGUMENT', /property of that name/, () =>
    new nn.Module().registerBuffer('training', torch.zeros([1])),
  );
  rejects('a buffer that is no tensor', 'ERR_ARGUMENT', /Tensor or null, got 3/, () =>
    new nn.Module().registerBuffer('a', wrong(3)),
  );
  rejects('a buffer that is a parameter', 'ERR_ARGUMENT', /got a Parameter/, () =>
    new nn.Module().registerBuffer('a', new nn.Parameter(torch.zeros([1]))),
  );
  rejects('setting an unknown buffer', 'ERR_ARGUMENT', /no buffer/, () =>
    new nn.Module().setBuffer('a', null),
  );
  rejects('a mode that is no boolean', 'ERR_ARGUMENT', /boolean, got 1/, () =>
    new nn.Module().train(wrong(1)),
  );
  rejects('becoming integers', 'ERR_DTYPE', /floating-point .* 'int64'/, () =>
    new nn.Linear(1, 1).to('int64'),
  );
  rejects('moving to an unknown device', 'ERR_DEVICE', /nowhere/, () => new nn.Linear(1, 1).to('nowhere'));
  rejects('moving to nothing', 'ERR_ARGUMENT', /Module\.to/, () => new nn.Linear(1, 1).to(wrong(undefined)));
  rejects('being called without a forward', 'ERR_NOT_IMPLEMENTED', /no forward\(\)/, () =>
    new nn.Module().call(),
  );
  rejects('use after dispose', 'ERR_DISPOSED', /dispose/i, () => {
    const linear = new nn.Linear(2, 2);
    linear.dispose();
    linear.call(torch.ones([1, 2]));
  });
});

describe('initialisation refuses', () => {
  rejects('a vector that has no fans', 'ERR_SHAPE', /\[3\]/, () => init.xavierUniform_(torch.zeros([3])));
  rejects('an unknown nonlinearity', 'ERR_ARGUMENT', /'swish'/, () => init.calculateGain(wrong('swish')));
  rejects('an unknown mode', 'ERR_ARGUMENT', /fan_avg/, () =>
    init.kaimingNormal_(torch.zeros([2, 2]), { mode: wrong('fan_avg') }),
  );
  rejects('what is no tensor', 'ERR_ARGUMENT', /Tensor/, () => init.normal_(wrong(null)));
  rejects('bounds the wrong way round', 'ERR_ARGUMENT', /uniform_/, () =>
    init.uniform_(torch.zeros([2]), 1, 0),
  );
  rejects('a negative deviation', 'ERR_ARGUMENT', /normal_/, () => init.normal_(torch.zeros([2]), 0, -1));
  rejects('integers', 'ERR_DTYPE', /floating/, () => init.normal_(torch.zeros([2], { dtype: 'int64' })));
  rejects('an orthogonal vector', 'ERR_SHAPE', /two dimensions/, () => init.orthogonal_(torch.zeros([3])));
});

describeEachDevice('forward refuses', (device) => {
  const zeros = (shape: number[], dtype: torch.DType = 'float32') => torch.zeros(shape, { dtype, device });
  const linear = () => new nn.Linear(4, 2, { device });
  const embedding = () => new nn.Embedding(5, 3, { device });

  rejects('a wrong number of features', 'ERR_SHAPE', /input has 3 features, expected 4/, () =>
    linear().call(zeros([2, 3])),
  );
  rejects('a scalar', 'ERR_SHAPE', /input has no features/, () => linear().call(zeros([])));
  rejects('another dtype', 'ERR_DTYPE', /input is float64, weight is float32/, () =>
    linear().call(zeros([2, 4], 'float64')),
  );
  rejects('integers', 'ERR_DTYPE', /input is int64/, () => linear().call(zeros([2, 4], 'int64')));
  rejects('what is no tensor', 'ERR_ARGUMENT', /input must be a Tensor, got \[1\]/, () =>
    linear().call(wrong([1])),
  );
  rejects('nothing', 'ERR_ARGUMENT', /input must be a Tensor, got undefined/, () =>
    linear().call(wrong(undefined)),
  );
  rejects('a bias of the wrong size', 'ERR_SHAPE', /bias \[3\]/, () =>
    F.linear(zeros([2, 4]), zeros([2, 4]), zeros([3])),
  );
  rejects('indices that are floats', 'ERR_DTYPE', /int64 or int32, got float32/, () =>
    embedding().call(zeros([2])),
  );
  rejects(
    'an input that does not end in the normalized shape',
    'ERR_SHAPE',
    /\[2, 3\] must end in .* \[4\]/,
    () => new nn.LayerNorm(4, { device }).call(zeros([2, 3])),
  );
  rejects('too few dimensions for the norm', 'ERR_SHAPE', /must end in/, () =>
    new nn.RMSNorm([4, 4], { device }).call(zeros([4])),
  );
  rejects('integers into a norm', 'ERR_DTYPE', /int64/, () =>
    new nn.LayerNorm(4, { device }).call(zeros([2, 4], 'int64')),
  );
  rejects('integers into an activation', 'ERR_DTYPE', /gelu: input .* int64/, () =>
    new nn.GELU().call(zeros([2], 'int64')),
  );
  rejects('a softmax over no dimension', 'ERR_INDEX', /range/, () => F.softmax(zeros([2, 2]), 2));
  rejects('an odd size to halve', 'ERR_SHAPE', /size 5/, () => F.glu(zeros([2, 5])));
  rejects('p outside of [0, 1]', 'ERR_ARGUMENT', /dropout: p/, () => F.dropout(zeros([2]), 2));
  rejects('targets of another length', 'ERR_SHAPE', /must be \[3\].*got \[2\]/, () =>
    F.crossEntropy(zeros([3, 5]), zeros([2], 'int64')),
  );
  rejects('classes that are floats', 'ERR_DTYPE', /target must be int64, got float32/, () =>
    F.crossEntropy(zeros([3, 5]), zeros([3])),
  );
  rejects('class weights of another number', 'ERR_SHAPE', /each of the 5 classes/, () =>
    F.crossEntropy(zeros([3, 5]), zeros([3], 'int64'), { weight: zeros([4]) }),
  );
  rejects('smoothing above 1', 'ERR_ARGUMENT', /labelSmoothing/, () =>
    F.crossEntropy(zeros([3, 5]), zeros([3], 'int64'), { labelSmoothing: 1.1 }),
  );
  rejects('an unknown reduction', 'ERR_ARGUMENT', /'total'/, () =>
    F.mseLoss(zeros([3]), zeros([3]), { reduction: wrong('total') }),
  );
  rejects('a target of another shape (binary)', 'ERR_SHAPE', /shape of the input/, () =>
    F.binaryCrossEntropyWithLogits(zeros([3, 1]), zeros([3])),
  );
  rejects('shapes that do not broadcast', 'ERR_SHAPE', /do not go together/, () =>
    F.mseLoss(zeros([3]), zeros([2])),
  );
  rejects('a delta of zero', 'ERR_ARGUMENT', /delta/, () =>
    F.huberLoss(zeros([3]), zeros([3]), { delta: 0 }),
  );
  rejects('keys of another width', 'ERR_SHAPE', /same width/, () =>
    F.scaledDotProductAttention(zeros([2, 3, 4]), zeros([2, 3, 5]), zeros([2, 3, 5])),
  );
  rejects('a mask of another shape', 'ERR_SHAPE', /attnMask must be \[3, 3\]/, () => {
    const x = zeros([3, 1, 4]);
    return new nn.MultiheadAttention(4, 2, { device }).call(x, x, x, { attnMask: zeros([2, 3]) });
  });
  rejects('a causal hint without a mask', 'ERR_ARGUMENT', /isCausal/, () => {
    const x = zeros([3, 1, 4]);
    return new nn.MultiheadAttention(4, 2, { device }).call(x, x, x, { isCausal: true });
  });
  // On a GPU the read finds it, and the GPU must work on afterwards.
  rejects('an index past the table', 'ERR_INDEX', /range|bounds/, () =>
    embedding()
      .call(torch.tensor([0, 5], { dtype: 'int64', device }))
      .sum()
      .item(),
  );
  rejects('a negative index', 'ERR_INDEX', /range|bounds/, () =>
    embedding()
      .call(torch.tensor([-1], { dtype: 'int64', device }))
      .sum()
      .item(),
  );
  rejects('a class past the last', 'ERR_INDEX', /range|bounds/, () =>
    F.crossEntropy(zeros([2, 3]), torch.tensor([0, 3], { dtype: 'int64', device }))
      .sum()
      .item(),
  );
});
