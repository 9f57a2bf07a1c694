import type { ReduceOp } from '@fmoe/comm';
import { grad, manualSeed, randn, type Tensor, tidy } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { FMoETransformerMLP, type SliceGroup } from './index.js';

beforeEach(() => {
  manualSeed(8);
});

/** The rows of a rank when T rows are shared as evenly as whole rows can be, the first ranks taking one more. */
function share(tokens: number, size: number): number[] {
  return Array.from({ length: size }, (_, rank) => Math.max(0, Math.ceil((tokens - rank) / size)));
}

/**
 * One rank of a group whose other ranks are played: an all-gather answers with the whole that one process computed, and
 * checks that this rank's part is right.
 */
class PlayedGroup implements SliceGroup {
  readonly calls: string[] = [];
  constructor(
    readonly rank: number,
    readonly size: number,
    readonly wholes: Tensor[],
    readonly meanGradient: Tensor,
  ) {}
  allGather(part: Tensor, rowsOfRank: readonly number[]): Tensor {
    const whole = this.wholes[this.calls.length === 0 ? 0 : 1]!;
    expect(rowsOfRank).toEqual(share(whole.shape[0]!, this.size));
    this.calls.push('allGather');
    expectAllClose(part, this.own(whole, rowsOfRank), { rtol: 1e-12, atol: 1e-12 });
    return whole.clone();
  }
  reduceScatter(whole: Tensor, rowsOfRank: readonly number[], op: ReduceOp = 'sum'): Tensor {
    expect(op).toBe('mean');
    expect(whole.shape[0]).toBe(rowsOfRank.reduce((a, b) => a + b));
    this.calls.push('reduceScatter');
    return this.own(this.meanGradient, rowsOfRank).clone();
  }
  private own(whole: Tensor, rowsOfRank: readonly number[]): Tensor {
    const start = rowsOfRank.slice(0, this.rank).reduce((a, b) => a + b, 0);
    return whole.narrow(0, start, rowsOfRank[this.rank]!);
  }
}

describe('sliceGroup', () => {
  it.each([
    [7, 3],
    [6, 3],
    [2, 3],
    [0, 2],
  ])(
    '%d rows over %d ranks equal one process: outputs, input gradients, and parameter gradients in sum',
    (tokens, size) => {
      tidy(() => {
        const sizes = { numExpert: 4, dModel: 6, dHidden: 5 };
        const layer = new FMoETransformerMLP(sizes).to('float64');
        const x = randn([tokens, 6], { dtype: 'float64', requiresGrad: true });
        const weights = randn([tokens, 6], { dtype: 'float64' });
        const whole = layer.forward(x);
        const inputs = [x, ...layer.parameters()];
        const wanted = grad([whole.mul(weights).sum()], inputs, { retainGraph: true });
        const sums: Tensor[] = [];
        for (let rank = 0; rank < size; rank++) {
          const group = new PlayedGroup(rank, size, [whole.detach(), wanted[0]!], weights);
          const sliced = new FMoETransformerMLP({ ...sizes, sliceGroup: group }).to('float64');
          sliced.loadStateDict(layer.stateDict());
          const output = sliced.forward(x);
          expectAllClose(output, whole.detach());
          const got = grad([output.mul(weights).sum()], [x, ...sliced.parameters()]);
          expect(group.calls).toEqual(['allGather', 'reduceScatter', 'allGather']);
          expectAllClose(got[0]!, wanted[0]!, { rtol: 1e-12, atol: 1e-12 });
          got.slice(1).forEach((part, i) => {
            sums[i] = sums[i] === undefined ? part : sums[i].add(part);
          });
        }
        sums.forEach((sum, i) => {
          expectAllClose(sum, wanted[i + 1]!, { rtol: 1e-11, atol: 1e-12 });
        });
      });
    },
  );

  it('takes the gradient of the mean loss where the ranks disagree', () => {
    tidy(() => {
      const sizes = { numExpert: 2, dModel: 6, dHidden: 5 };
      const layer = new FMoETransformerMLP(sizes).to('float64');
      const x = randn([4, 6], { dtype: 'float64', requiresGrad: true });
      const [mine, theirs] = [randn([4, 6], { dtype: 'float64' }), randn([4, 6], { dtype: 'float64' })];
      const mean = mine.add(theirs).div(2);
      const whole = layer.forward(x);
      const wanted = grad([whole.mul(mean).sum()], [x], { retainGraph: true })[0]!;
      const group = new PlayedGroup(1, 2, [whole.detach(), wanted], mean);
      const sliced = new FMoETransformerMLP({ ...sizes, sliceGroup: group }).to('float64');
      sliced.loadStateDict(layer.stateDict());
      expectAllClose(grad([sliced.forward(x).mul(mine).sum()], [x])[0]!, wanted, {
        rtol: 1e-12,
        atol: 1e-12,
      });
    });
  });
});
