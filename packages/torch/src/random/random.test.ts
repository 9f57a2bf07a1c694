import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, expectIdentical } from '../testing/index.js';

interface Bits {
  dtype: torch.DType;
  shape: number[];
  hex: string;
}
interface Draw {
  seed: string;
  call: string;
  args: never[];
  dtype: torch.DType;
  expected: Bits;
}
interface State {
  seed: number;
  bytes: number;
  sha256: string;
  next: Bits;
}

const read = <Type>(name: string): Type[] =>
  JSON.parse(readFileSync(new URL(`../../test/fixtures/${name}`, import.meta.url), 'utf8')) as Type[];
const decode = ({ dtype, shape, hex }: Bits): torch.Tensor =>
  torch.fromTypedArray(Uint8Array.from(Buffer.from(hex, 'hex')), shape, { dtype });

/** libtorch draws normal numbers by vector instructions, and on a machine without them the last bits differ. */
const hasAvx2 = process.arch === 'x64' && /\bavx2\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));
const expectDrawn = (actual: torch.Tensor, expected: torch.Tensor): void =>
  hasAvx2 ? expectIdentical(actual, expected) : expectAllClose(actual, expected, { rtol: 1e-2, atol: 1e-6 });

const draws: Record<string, (dtype: torch.DType, ...args: never[]) => torch.Tensor> = {
  randn: (dtype, shape) => torch.randn(shape, { dtype }),
  rand: (dtype, shape) => torch.rand(shape, { dtype }),
  randint: (dtype, low, high, shape) => torch.randint(low, high, shape, { dtype }),
  randperm: (dtype, n) => torch.randperm(n, { dtype }),
  normal_: (dtype, shape, mean, std) => torch.empty(shape, { dtype }).normal_(mean, std),
  uniform_: (dtype, shape, from, to) => torch.empty(shape, { dtype }).uniform_(from, to),
  exponential_: (dtype, shape, lambda) => torch.empty(shape, { dtype }).exponential_(lambda),
  bernoulli_: (dtype, shape, p) => torch.empty(shape, { dtype }).bernoulli_(p),
  dropout: (dtype, shape, p) => torch.dropout(torch.ones(shape, { dtype }), p, true),
  multinomial: (_dtype, weights, count) => torch.tensor(weights).multinomial(count, true),
};

afterEach(() => {
  torch.manualSeed(0);
});

describe('the same seed draws what PyTorch draws, bit for bit', () => {
  const titles = read<Draw>('core-random.json').map(
    (draw, i) =>
      [`${draw.call} ${JSON.stringify(draw.args)} ${draw.dtype} seed ${draw.seed} #${i}`, draw] as const,
  );
  it.each(titles)('%s', (_title, { seed, call, args, dtype, expected }) => {
    torch.tidy(() => {
      torch.manualSeed(BigInt(seed));
      expectDrawn(draws[call]!(dtype, ...args), decode(expected));
    });
  });

  it.each(read<State>('core-random-state.json'))(
    'and is then in the same state: seed $seed',
    ({ seed, bytes, sha256, next }) => {
      torch.tidy(() => {
        torch.manualSeed(seed);
        torch.randn([5]);
        torch.rand([3]);
        const state = torch.getRngState().data() as Uint8Array;
        expect([state.length, createHash('sha256').update(state).digest('hex')]).toEqual([bytes, sha256]);
        expectDrawn(torch.randn([4]), decode(next));
      });
    },
  );
});

describeEachDevice('the generator of a device', (device) => {
  it('repeats after a seed', () => {
    torch.tidy(() => {
      torch.manualSeed(5);
      const first = torch.randn([100], { device });
      const second = torch.randn([100], { device });
      torch.manualSeed(5);
      expectIdentical(torch.randn([100], { device }), first);
      expectIdentical(torch.randn([100], { device }), second);
      expect(first.equal(second)).toBe(false);
    });
  });

  it('goes on from a state that was saved, as a tensor or as bytes', () => {
    torch.tidy(() => {
      torch.manualSeed(1);
      torch.randn([7], { device });
      const state = torch.getRngState(device);
      const bytes = Uint8Array.from(state.data() as Uint8Array);
      const expected = torch.rand([20], { device });
      torch.setRngState(state, device);
      expectIdentical(torch.rand([20], { device }), expected);
      torch.manualSeed(99);
      torch.setRngState(bytes, device);
      expectIdentical(torch.rand([20], { device }), expected);
      expect([state.dtype, state.device]).toEqual(['uint8', 'cpu']);
    });
  });

  it('is left alone by one of its own', () => {
    torch.tidy(() => {
      const draw = (generator: torch.Generator) => torch.randn([10], { device, generator });
      const [a, b] = [new torch.Generator(device).manualSeed(3), new torch.Generator(device).manualSeed(3)];
      torch.manualSeed(8);
      const before = torch.randn([10], { device });
      torch.manualSeed(8);
      const own = draw(a);
      expectIdentical(torch.randn([10], { device }), before);
      expectIdentical(draw(b), own);
      expect(draw(a).equal(own)).toBe(false);
      expectIdentical(
        torch.randperm(9, { device, generator: a.manualSeed(1) }),
        torch.randperm(9, { device, generator: b.manualSeed(1) }),
      );
      expectIdentical(
        torch.randint(0, 9, [9], { device, generator: a.manualSeed(2) }),
        torch.randint(0, 9, [9], { device, generator: b.manualSeed(2) }),
      );
      torch.manualSeed(3);
      expectIdentical(torch.randn([10], { device }), own);
    });
  });
});

describe('manualSeed', () => {
  it('takes numbers and bigints of 64 bits, negative ones from the top', () => {
    for (const [seed, bits] of [
      [7, 7n],
      [2n ** 64n - 1n, 2n ** 64n - 1n],
      [-1, 2n ** 64n - 1n],
      [-(2n ** 63n), 2n ** 63n],
    ] as const) {
      torch.manualSeed(seed);
      expect(torch.initialSeed()).toBe(bits);
    }
  });

  const short = new Uint8Array(5);
  refuses([
    ['fractions', 'ERR_ARGUMENT', /'seed'.*1.5/, () => torch.manualSeed(1.5)],
    ['NaN', 'ERR_ARGUMENT', /NaN/, () => torch.manualSeed(Number.NaN)],
    ['numbers that are not exact', 'ERR_ARGUMENT', /integer/, () => torch.manualSeed(2 ** 60)],
    ['more than 64 bits', 'ERR_ARGUMENT', /64 bits/, () => torch.manualSeed(2n ** 64n)],
    ['strings', 'ERR_ARGUMENT', /'abc'/, () => torch.manualSeed(wrong('abc'))],
    ['nothing', 'ERR_ARGUMENT', /undefined/, () => torch.manualSeed(wrong(undefined))],
    [
      'a fraction for a generator',
      'ERR_ARGUMENT',
      /Generator.manualSeed/,
      () => new torch.Generator().manualSeed(1.5),
    ],
    ['a generator of no device', 'ERR_DEVICE', /'foo'/, () => new torch.Generator('foo')],
    ['a generator of a missing GPU', 'ERR_DEVICE', /'cuda:99'/, () => new torch.Generator('cuda:99')],
    ['a generator without numbers', 'ERR_DEVICE', /meta|META/, () => new torch.Generator('meta')],
    ['the state of no device', 'ERR_DEVICE', /'foo'/, () => torch.getRngState('foo')],
    ['a state of another size', 'ERR_SHAPE', /5056.*5/, () => torch.setRngState(short)],
    ['a state of another dtype', 'ERR_DTYPE', /ByteTensor/, () => torch.setRngState(torch.zeros([5056]))],
    ['a state that none was', 'ERR_ARGUMENT', /mt19937/, () => torch.setRngState(new Uint8Array(5056))],
    ['a state that is no tensor', 'ERR_ARGUMENT', /'state'/, () => torch.setRngState(wrong([1]))],
  ]);

  it('leaves the sequence where it was when it refuses a state', () => {
    torch.tidy(() => {
      torch.manualSeed(4);
      const expected = torch.rand([5]);
      torch.manualSeed(4);
      expect(() => torch.setRngState(new Uint8Array(5056))).toThrow();
      expectIdentical(torch.rand([5]), expected);
    });
  });
});
