import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  buildModule,
  decode,
  type EncodedTensor,
  isEncoded,
  readFixture,
} from '../../test/support/fixtures.js';
import * as torch from '../index.js';
import { describeEachDevice, describeUnless, expectAllClose } from '../testing/index.js';
import { init, Parameter } from './index.js';

interface Digest {
  dtype: torch.DType;
  shape: number[];
  first: number[];
  sha256: string;
}

interface InitCase {
  kind?: string;
  args: unknown[];
  seed: number;
  state: Record<string, Digest>;
  next: Digest;
  fill?: string;
  shape: number[];
  exact: boolean;
  value: Digest | EncodedTensor;
}

const FILLS: Record<string, (tensor: torch.Tensor, ...args: never[]) => torch.Tensor> = {
  uniform_: init.uniform_,
  normal_: init.normal_,
  constant_: init.constant_,
  eye_: init.eye_,
  trunc_normal_: init.truncNormal_,
  xavier_uniform_: init.xavierUniform_,
  xavier_normal_: init.xavierNormal_,
  kaiming_uniform_: init.kaimingUniform_,
  kaiming_normal_: init.kaimingNormal_,
  orthogonal_: init.orthogonal_,
};

function digest(tensor: torch.Tensor): Digest {
  const data = tensor.detach().data();
  return {
    dtype: tensor.dtype,
    shape: [...tensor.shape],
    first: Array.from(data as Float64Array).slice(0, 4),
    sha256: createHash('sha256')
      .update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
      .digest('hex'),
  };
}

/** The first values in the tensor's own precision, so that a failure shows numbers and not only a hash. */
function widen(expected: Digest): Digest {
  return expected.dtype === 'float32' ? { ...expected, first: expected.first.map(Math.fround) } : expected;
}

// normal_ on other processors is vectorised differently and rounds differently.
const otherBits = process.arch === 'x64' ? undefined : `recorded on x64, this is ${process.arch}`;

describeUnless(otherBits, 'initial values equal to the bits of PyTorch', () => {
  for (const [index, example] of readFixture<InitCase>('nn-init.json').entries()) {
    const title = `${index} ${example.kind ?? example.fill}(${JSON.stringify(example.args).slice(1, -1)})`;
    it(`${title} from seed ${example.seed}`, () => {
      torch.tidy(() => {
        torch.manualSeed(example.seed);
        if (example.kind) {
          const module = buildModule(example.kind, example.args);
          const state = module.stateDict();
          expect(Object.keys(state)).toEqual(Object.keys(example.state));
          for (const [name, value] of Object.entries(state)) {
            expect(digest(value), name).toEqual(widen(example.state[name] as Digest));
          }
          module.dispose();
        } else {
          const dtype = example.value.dtype;
          const tensor = torch.empty(example.shape, { dtype });
          const fill = FILLS[example.fill as string];
          expect(fill?.(tensor, ...(example.args as never[]))).toBe(tensor);
          if (isEncoded(example.value)) {
            const tolerance = dtype === 'float64' ? 1e-12 : 1e-5;
            expectAllClose(tensor, decode(example.value), { rtol: tolerance, atol: tolerance });
          } else {
            expect(digest(tensor)).toEqual(widen(example.value));
          }
        }
        expect(digest(torch.rand([4])), 'the generator stands elsewhere').toEqual(widen(example.next));
      });
    });
  }
});

describeEachDevice('initialisation', (device) => {
  it('fills parameters outside of autograd and returns them', () => {
    torch.tidy(() => {
      const weight = new Parameter(torch.zeros([40, 50], { device }));
      expect(init.xavierUniform_(weight)).toBe(weight);
      expect(weight.isLeaf).toBe(true);
      expect(weight.requiresGrad).toBe(true);
      const bound = Math.sqrt(6 / 90);
      expect(weight.detach().abs().max().item()).toBeLessThanOrEqual(bound);
      expect(weight.detach().abs().max().item()).toBeGreaterThan(0.95 * bound);
      weight.dispose();
    });
  });

  it('draws truncated normal values inside the bounds and with the moments of the cut distribution', () => {
    torch.tidy(() => {
      torch.manualSeed(3);
      const values = init.truncNormal_(torch.empty([100_000], { device, dtype: 'float64' }), { a: -1, b: 2 });
      expect(values.min().item()).toBeGreaterThanOrEqual(-1);
      expect(values.max().item()).toBeLessThanOrEqual(2);
      // Mean of a standard normal cut to [a, b]: (φ(a) - φ(b)) / (Φ(b) - Φ(a)).
      const density = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
      const mean = (density(-1) - density(2)) / (0.977249868 - 0.158655254);
      expect(Math.abs(values.mean().item() - mean)).toBeLessThan(0.01);
    });
  });

  it('makes orthonormal rows or columns', () => {
    torch.tidy(() => {
      const tall = init.orthogonal_(torch.empty([7, 4], { device, dtype: 'float64' }));
      expectAllClose(tall.t().matmul(tall), torch.eye(4, { device, dtype: 'float64' }));
      const wide = init.orthogonal_(torch.empty([3, 2, 4], { device, dtype: 'float64' }), { gain: 2 });
      const rows = wide.reshape([3, 8]);
      expectAllClose(rows.matmul(rows.t()), torch.eye(3, { device, dtype: 'float64' }).mul(4));
    });
  });

  it('leaves no tensors behind', () => {
    const weight = torch.empty([6, 5], { device });
    const before = torch.memory().tensors;
    for (const [name, fill] of Object.entries(FILLS)) {
      fill(weight, ...((name === 'constant_' ? [1] : []) as never[]));
    }
    init.zeros_(weight);
    init.ones_(weight);
    expect(torch.memory().tensors).toBe(before);
    weight.dispose();
  });
});

describe('gains and fans', () => {
  it.each([
    ['linear', undefined, 1],
    ['sigmoid', undefined, 1],
    ['tanh', undefined, 5 / 3],
    ['relu', undefined, Math.SQRT2],
    ['leaky_relu', undefined, Math.sqrt(2 / 1.0001)],
    ['leaky_relu', 0.2, Math.sqrt(2 / 1.04)],
    ['selu', undefined, 0.75],
  ] as const)('the gain of %s (%s) is %d', (name, slope, gain) => {
    expect(init.calculateGain(name, slope)).toBeCloseTo(gain, 14);
  });

  it('counts inputs and outputs, kernels included', () => {
    torch.tidy(() => {
      expect(init.calculateFanInAndFanOut(torch.empty([4, 3]))).toEqual({ fanIn: 3, fanOut: 4 });
      expect(init.calculateFanInAndFanOut(torch.empty([4, 3, 5, 2]))).toEqual({ fanIn: 30, fanOut: 40 });
    });
  });
});
