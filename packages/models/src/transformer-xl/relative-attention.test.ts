import { arange, gradcheck, manualSeed, nn, noGrad, randn, type Tensor } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { forbiddenKeys, MaskCache, shiftedMask } from './attention-mask.js';
import { PositionalEmbedding } from './positional-embedding.js';
import { type AttentionContext, RelativeAttention, relativeShift } from './relative-attention.js';

beforeEach(() => {
  manualSeed(12);
});

type Matrix = number[][];
type Cube = number[][][];
const float64 = { dtype: 'float64' } as const;
const sizes = { nHead: 2, dModel: 8, dHead: 4, dropout: 0, dropatt: 0 };

const times = (weight: Matrix, vector: number[]): number[] =>
  weight.map((row) => row.reduce((sum, w, i) => sum + w * vector[i]!, 0));
const dot = (a: number[], b: number[]): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);

/**
 * The paper's attention for one query i of one batch column and one head, in plain numbers: the sum over visible keys j of
 * softmax_j(((q_i + u)·k_j + (q_i + v)·r_{i-j}) / √C) v_j.
 */
function attendByFormula(
  attention: RelativeAttention,
  context: AttentionContext,
  hidden: Matrix,
  mlen: number,
  i: number,
  head: number,
): number[] {
  const { dHead, nHead } = attention;
  const weight = attention.qkv_net.weight.toArray() as Matrix;
  const part = (which: number, row: number[]) =>
    times(weight, row).slice((which * nHead + head) * dHead, (which * nHead + head + 1) * dHead);
  const positions = context.positions.toArray() as Matrix;
  const klen = positions.length - 1;
  const distanceKey = (distance: number) =>
    times(attention.r_net.weight.toArray() as Matrix, positions[klen - 1 - distance]!).slice(
      head * dHead,
      (head + 1) * dHead,
    );
  const query = part(0, hidden[mlen + i]!);
  const u = (context.r_w_bias.toArray() as Matrix)[head]!;
  const v = (context.r_r_bias.toArray() as Matrix)[head]!;
  const visible = Array.from({ length: mlen + i + 1 }, (_, j) => j);
  const scores = visible.map((j) => {
    const content = dot(
      query.map((value, c) => value + u[c]!),
      part(1, hidden[j]!),
    );
    const position = dot(
      query.map((value, c) => value + v[c]!),
      distanceKey(mlen + i - j),
    );
    return (content + position) / Math.sqrt(dHead);
  });
  const largest = Math.max(...scores);
  const exps = scores.map((score) => Math.exp(score - largest));
  const total = exps.reduce((a, b) => a + b);
  const output = new Array<number>(dHead).fill(0);
  visible.forEach((j, index) => {
    part(2, hidden[j]!).forEach((value, c) => {
      output[c]! += (exps[index]! / total) * value;
    });
  });
  return output;
}

function makeContext(qlen: number, mlen: number): AttentionContext {
  const positions = new PositionalEmbedding(sizes.dModel, -1).to('float64').forward(qlen + mlen);
  const mask = shiftedMask({ qlen, mlen, memLen: mlen, sameLength: false, dtype: 'float64', device: 'cpu' });
  const bias = () => randn([sizes.nHead, sizes.dHead], { ...float64, requiresGrad: true });
  return { positions, mask, r_w_bias: bias(), r_r_bias: bias() };
}

describe('RelativeAttention', () => {
  it.each([
    { qlen: 4, mlen: 0 },
    { qlen: 3, mlen: 5 },
    { qlen: 1, mlen: 2 },
    { qlen: 1, mlen: 0 },
  ])("equals the paper's formula, score by score: %j", ({ qlen, mlen }) => {
    const bsz = 2;
    const attention = new RelativeAttention({ ...sizes, preLnorm: false }).to('float64');
    const context = makeContext(qlen, mlen);
    const w = randn([qlen, bsz, sizes.dModel], float64);
    const mem = mlen > 0 ? randn([mlen, bsz, sizes.dModel], float64) : null;
    const cube = [...((mem?.toArray() ?? []) as Cube), ...(w.toArray() as Cube)];
    const output = attention.o_net.weight.toArray() as Matrix;
    const expected = Array.from({ length: qlen }, (_, i) =>
      Array.from({ length: bsz }, (_, column) => {
        const hidden = cube.map((row) => row[column]!);
        const heads = [0, 1].flatMap((head) => attendByFormula(attention, context, hidden, mlen, i, head));
        return times(output, heads).map((value, d) => value + hidden[mlen + i]![d]!);
      }),
    );
    const normalised = nn.functional.layerNorm(toTensor(expected), [sizes.dModel]);
    expectAllClose(attention.forward(w, context, mem), normalised, { rtol: 1e-10, atol: 1e-12 });
  });

  it.each([false, true])(
    'has right gradients for states, biases and all weights (pre-norm %s)',
    (preLnorm) => {
      const attention = new RelativeAttention({ ...sizes, preLnorm }).to('float64');
      const context = makeContext(3, 2);
      const w = randn([3, 2, sizes.dModel], { ...float64, requiresGrad: true });
      const mem = randn([2, 2, sizes.dModel], float64);
      const weights = randn([3, 2, sizes.dModel], float64);
      gradcheck(
        () => attention.forward(w, context, mem).mul(weights).sum(),
        [w, context.r_w_bias, context.r_r_bias, ...attention.parameters()],
      );
    },
  );
});

function toTensor(values: Cube): Tensor {
  const flat = values.flat(2);
  const tensor = randn([flat.length], float64);
  (tensor.data() as Float64Array).set(flat);
  return tensor.view([values.length, values[0]!.length, values[0]![0]!.length]);
}

describe('relativeShift', () => {
  it('moves the score of distance i - j + M to key j', () => {
    const [qlen, mlen] = [3, 2];
    const klen = qlen + mlen;
    // Column c holds the distance L-1-c, as in the table of positions.
    const byDistance = arange(klen - 1, -2, -1, float64)
      .expand([1, qlen, klen + 1])
      .contiguous();
    const byKey = (relativeShift(byDistance, qlen, klen).toArray() as Cube)[0]!;
    for (let i = 0; i < qlen; i++) {
      for (let j = 0; j <= i + mlen; j++) expect(byKey[i]![j]).toBe(mlen + i - j);
    }
  });
});

describe('the attention mask', () => {
  const lengths = [
    [1, 0],
    [4, 0],
    [3, 2],
    [3, 6],
    [6, 6],
    [7, 3],
  ] as const;

  it.each(lengths)('hides the future: %i queries, %i remembered', (qlen, mlen) => {
    const mask = forbiddenKeys({ qlen, mlen, memLen: 6, sameLength: false, device: 'cpu' }).toArray();
    const expected = Array.from({ length: qlen }, (_, i) =>
      Array.from({ length: qlen + mlen }, (_, j) => j > i + mlen),
    );
    expect(mask).toEqual(expected);
  });

  it.each(lengths)('with sameLength shows memLen keys at most: %i queries, %i remembered', (qlen, mlen) => {
    const memLen = 6;
    const mask = forbiddenKeys({
      qlen,
      mlen,
      memLen,
      sameLength: true,
      device: 'cpu',
    }).toArray() as boolean[][];
    mask.forEach((row, i) => {
      const visible = row.flatMap((hidden, j) => (hidden ? [] : [j]));
      const first = Math.max(0, i + mlen - memLen + 1);
      expect(visible).toEqual(Array.from({ length: i + mlen + 1 - first }, (_, n) => first + n));
    });
  });

  it('is laid out so that the relative shift puts it in place', () => {
    const request = {
      qlen: 4,
      mlen: 3,
      memLen: 4,
      sameLength: true,
      dtype: 'float64',
      device: 'cpu',
    } as const;
    const shifted = relativeShift(shiftedMask(request), 4, 7).squeeze(0);
    expect(shifted.isneginf().toArray()).toEqual(forbiddenKeys(request).toArray());
    expect(shifted.maskedFill(shifted.isneginf(), 0).abs().sum().item()).toBe(0);
  });

  it('is made once for each length, and again after clear()', () => {
    const cache = new MaskCache();
    const request = {
      qlen: 2,
      mlen: 1,
      memLen: 4,
      sameLength: false,
      dtype: 'float32',
      device: 'cpu',
    } as const;
    const first = cache.get(request);
    expect(cache.get({ ...request })).toBe(first);
    expect(cache.get({ ...request, mlen: 2 })).not.toBe(first);
    for (let qlen = 3; qlen < 100; qlen++) cache.get({ ...request, qlen });
    expect(first.isDisposed).toBe(true);
    cache.clear();
  });
});

describe('PositionalEmbedding', () => {
  it('holds sines and cosines of the distances', () => {
    const embedding = new PositionalEmbedding(8, -1);
    const table = noGrad(() => embedding.forward(5)).toArray() as Matrix;
    expect(table.length).toBe(6);
    for (let row = 0; row < 5; row++) {
      for (let i = 0; i < 4; i++) {
        const angle = (4 - row) / 10000 ** ((2 * i) / 8);
        expect(table[row]![i]).toBeCloseTo(Math.sin(angle), 6);
        expect(table[row]![4 + i]).toBeCloseTo(Math.cos(angle), 6);
      }
    }
  });

  it('gives the same rows from a longer table', () => {
    const embedding = new PositionalEmbedding(8, 3);
    const short = embedding.forward(4).clone();
    embedding.forward(9);
    expectAllClose(embedding.forward(4), short, { rtol: 0, atol: 0 });
  });
});
