import { testTransports } from '@fmoe/comm/testing';
import { describeUnless } from '@fmoe/torch/testing';
import { it } from 'vitest';
import { expectEqualOnRanks } from './on-ranks.js';

const transports = testTransports();
const [first] = transports;

for (const transport of transports.filter((each) => each === first || each.device === 'cuda')) {
  describeUnless(transport.missing, `work on the same tokens shared out over ${transport.name}`, () => {
    it.each([1, 2, 3])(
      'equals one process on %i ranks',
      async (processes) => {
        await expectEqualOnRanks(transport, processes, 'slice-group.ts', { fewest: 300 });
      },
      240_000,
    );
  });
}
