import { describeUnless } from '@fmoe/torch/testing';
import { it } from 'vitest';
import { expectEqualOnRanks, noRanks } from './on-ranks.js';

describeUnless(noRanks, 'work on the same tokens, shared out with sliceGroup', () => {
  it.each([1, 2, 3])(
    'equals one process on %i ranks',
    (processes) => expectEqualOnRanks('slice-group.ts', processes, 300),
    120_000,
  );
});
