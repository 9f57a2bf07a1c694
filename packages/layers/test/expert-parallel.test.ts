import { type RankRun, type TestTransport, testTransports } from '@fmoe/comm/testing';
import { cuda } from '@fmoe/torch';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { expectEqualOnRanks } from './on-ranks.js';

const compare = (transport: TestTransport, processes: number, dtype: string): Promise<RankRun> =>
  expectEqualOnRanks(transport, processes, 'equal-to-one.ts', {
    args: [dtype],
    fewest: dtype === 'bfloat16' ? 200 : 1000,
  });

const transports = testTransports();
const [first] = transports;

describeUnless(first!.missing, 'experts on many ranks', () => {
  it.each([1, 2, 3, 4, 8])(
    'are equal to one process on %i ranks',
    async (processes) => {
      const run = await compare(first!, processes, 'float64');
      expect(run.error).toBe('');
    },
    240_000,
  );

  it.each(['float32', 'bfloat16'])(
    'are equal to one process up to rounding in %s',
    async (dtype) => {
      await compare(first!, 2, dtype);
    },
    240_000,
  );
});

// The other MPIs on few ranks: what differs between them is below the layers.
for (const transport of transports.filter((other) => other.device === 'cpu' && other !== first)) {
  describeUnless(transport.missing, `experts on many ranks over ${transport.name}`, () => {
    it.each([2, 3])(
      'are equal to one process on %i ranks',
      async (processes) => {
        const run = await compare(transport, processes, 'float64');
        expect(run.error).toBe('');
      },
      240_000,
    );
  });
}

for (const transport of transports.filter(({ device }) => device === 'cuda')) {
  describeUnless(transport.missing, `experts on many ranks over ${transport.name}`, () => {
    const many = transport.missing === undefined && cuda.deviceCount() >= 8 ? [8] : [];
    const dtypes = transport.backend === 'nccl' ? ['float64', 'float32', 'bfloat16'] : ['float64'];
    it.each([1, 2, 4, ...many].flatMap((processes) => dtypes.map((dtype) => [processes, dtype] as const)))(
      'are equal to one process on %i ranks in %s',
      async (processes, dtype) => {
        await compare(transport, processes, dtype);
      },
      240_000,
    );
  });
}
