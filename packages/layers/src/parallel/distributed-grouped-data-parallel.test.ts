import { LocalGroup } from '@fmoe/comm';
import { testTransports } from '@fmoe/comm/testing';
import { nn, ones } from '@fmoe/torch';
import { describeUnless } from '@fmoe/torch/testing';
import { describe, expect, it } from 'vitest';
import { expectEqualOnRanks } from '../../test/on-ranks.js';
import { markModuleParallelComm } from '../parallel-comm.js';
import { DistributedGroupedDataParallel } from './index.js';

const [first, ...others] = testTransports();

for (const transport of [first!, ...others.filter(({ device }) => device === 'cuda')]) {
  describeUnless(transport.missing, `gradients over ${transport.name}`, () => {
    it.each([1, 2, 3, 4])(
      'of %i ranks are those of one process with the whole batch',
      async (processes) => {
        const run = await expectEqualOnRanks(transport, processes, 'data-parallel.ts', { fewest: 300 });
        if (transport.device === 'cpu') expect(run.error).toBe('');
      },
      240_000,
    );
  });
}

describe('DistributedGroupedDataParallel', () => {
  it('divides gradients by a number of the caller when there is one process', () => {
    const layer = new nn.Linear(2, 1);
    const parallel = new DistributedGroupedDataParallel(layer, {
      groups: { dp: new LocalGroup() },
      divisors: { dp: 4 },
    });
    for (let step = 0; step < 2; step++) {
      layer.zeroGrad();
      parallel
        .call(ones([1, 2]))
        .sum()
        .backward();
      parallel.allreduceGradients();
      expect(layer.weight.grad!.toArray()).toEqual([[0.25, 0.25]]);
    }
    parallel.dispose();
  });

  it.each([
    [{ groups: {} }, /groups needs at least dp or world/],
    [{ scale: 'mean' as 'group' }, /scale is 'mean', expected 'global' or 'group'/],
  ])('refuses %j', (options, message) => {
    const groups = { dp: new LocalGroup() };
    expect(() => new DistributedGroupedDataParallel(new nn.Linear(2, 2), { groups, ...options })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  it('refuses a tag that has no group', () => {
    const layer = new nn.Linear(2, 2);
    markModuleParallelComm(layer, 'piar');
    expect(() => new DistributedGroupedDataParallel(layer, { groups: { dp: new LocalGroup() } })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(
          /bias is to be synchronised over 'piar', but groups has only dp, gate/,
        ),
      }),
    );
  });
});
