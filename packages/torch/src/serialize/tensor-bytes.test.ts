import { expect, it } from 'vitest';
import * as torch from '../index.js';
import { describeEachDevice, expectIdentical } from '../testing/index.js';
import { eachChunk } from './tensor-bytes.js';

describeEachDevice('eachChunk', (device) => {
  it.each([1000, 16, 13, 4])('hands over all bytes in pieces of at most %i', (maxBytes) => {
    torch.tidy(() => {
      const base = torch.arange(15, { dtype: 'int32', device }).reshape([3, 5]);
      for (const x of [base, base.t(), base.at('...', 1), base.at(0, 0)]) {
        const pieces: Buffer[] = [];
        const before = torch.memory().tensors;
        eachChunk(
          x,
          (bytes, offset) => {
            expect(offset).toBe(Buffer.concat(pieces).length);
            expect(bytes.length).toBeLessThanOrEqual(maxBytes);
            pieces.push(Buffer.from(bytes));
          },
          maxBytes,
        );
        expect(torch.memory().tensors).toBe(before);
        const whole = Buffer.concat(pieces);
        const values = Array.from({ length: whole.length / 4 }, (_, i) => whole.readInt32LE(4 * i));
        expect(values).toEqual([x.toArray()].flat(9));
      }
      eachChunk(torch.empty([0, 3], { device }), () => expect.fail('there is nothing to visit'));
    });
  });
});

it('gives the memory of a contiguous CPU tensor', () => {
  torch.tidy(() => {
    const x = torch.zeros([2, 3], { dtype: 'bfloat16' });
    eachChunk(x, (bytes, offset) => bytes.fill(0x3f + offset), 4);
    expectIdentical(x.view([3, 2]).at(0), torch.tensor([0.7461, 0.7461], { dtype: 'bfloat16' }));
    expect(new Set(x.data() as Uint16Array)).toEqual(new Set([0x3f3f, 0x4343, 0x4747]));
  });
});
