import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { codedError, temporaryFolder } from '../../../test/support/temporary-folder.js';
import { crc32c, maskedCrc32c } from './crc32c.js';
import { EventFile } from './event-file.js';
import { histogramOf, histogramOfCounts } from './histogram.js';
import { MessageWriter } from './protobuf.js';

const fixture = readFileSync(fileURLToPath(new URL('./fixtures/events.tfevents', import.meta.url)));

/** CRC-32C by its definition: polynomial division, one bit at a time. */
function slowCrc32c(bytes: Uint8Array): number {
  let remainder = 0xffffffff;
  for (const byte of bytes) {
    for (let bit = 0; bit < 8; bit++) {
      const out = (remainder ^ (byte >>> bit)) & 1;
      remainder = (remainder >>> 1) ^ (out ? 0x82f63b78 : 0);
    }
  }
  return ~remainder >>> 0;
}

describe('crc32c', () => {
  // The check value of the algorithm's catalogue entry, and the four examples of RFC 3720, appendix B.4.
  const ascending = Uint8Array.from({ length: 32 }, (_, i) => i);
  it.each([
    ['123456789', new TextEncoder().encode('123456789'), 0xe3069283],
    ['32 zeros', new Uint8Array(32), 0x8a9136aa],
    ['32 ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['0 to 31', ascending, 0x46dd794e],
    ['31 to 0', ascending.slice().reverse(), 0x113fdb5c],
    ['nothing', new Uint8Array(0), 0],
  ])('of %s', (_, bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
  });

  it('equals the bitwise definition', () => {
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (i * 167 + (i >> 3)) & 255);
    expect(crc32c(bytes)).toBe(slowCrc32c(bytes));
  });
});

describe('EventFile', () => {
  it('writes the bytes that TensorBoard writes', () => {
    const times = [1000.25, 1000.25, 1001.5, 1002, 1002, 1003, 1004];
    const file = new EventFile(temporaryFolder(), { now: () => times.shift()! });
    file.restart(41);
    file.scalar('train/loss', 2.625, 3);
    file.scalar('train/loss', -1e-3, 300_000);
    file.histogram('experts/load', histogramOfCounts([1, 2, 6, 1]), 7);
    file.text('sample', '# A sample\n\nof “text”', 8);
    file.close();
    expect(times).toEqual([]);
    expect(file.path).toMatch(/events\.out\.tfevents\.0000001000\./);
    expect(readFileSync(file.path).toString('hex')).toBe(fixture.toString('hex'));
  });

  it('frames every record with its length and two checksums', () => {
    const file = new EventFile(temporaryFolder());
    file.scalar('a', 1, 1);
    const bytes = readFileSync(file.path);
    let offset = 0;
    let records = 0;
    while (offset < bytes.length) {
      const length = Number(bytes.readBigUInt64LE(offset));
      const head = bytes.subarray(offset, offset + 8);
      const body = bytes.subarray(offset + 12, offset + 12 + length);
      expect(bytes.readUInt32LE(offset + 8)).toBe(maskedCrc32c(head));
      expect(bytes.readUInt32LE(offset + 12 + length)).toBe(maskedCrc32c(body));
      offset += 16 + length;
      records += 1;
    }
    expect(offset).toBe(bytes.length);
    expect(records).toBe(2);
    file.close();
    expect(() => file.scalar('a', 1, 2)).toThrow(codedError('ERR_FILE', /is closed/));
  });

  it('refuses a folder that cannot be made', () => {
    const file = fileURLToPath(import.meta.url);
    expect(() => new EventFile(`${file}/events`)).toThrow(
      codedError('ERR_FILE', /Cannot write the event file/),
    );
  });
});

describe('MessageWriter', () => {
  it('writes numbers of any size as variable-length integers', () => {
    const encode = (value: number) => Array.from(new MessageWriter().integer(1, value).finish()).slice(1);
    expect(encode(1)).toEqual([1]);
    expect(encode(127)).toEqual([127]);
    expect(encode(128)).toEqual([0x80, 1]);
    expect(encode(2 ** 40)).toEqual([0x80, 0x80, 0x80, 0x80, 0x80, 0x20]);
  });
});

describe('histogramOf', () => {
  it('counts every value once, at and below its limit', () => {
    const values = Array.from({ length: 500 }, (_, i) => Math.sin(i) * (1 + (i % 7)));
    const histogram = histogramOf(values, 10);
    let below = Number.NEGATIVE_INFINITY;
    for (const [i, limit] of histogram.limits.entries()) {
      const expected = values.filter((value) => value > below && value <= limit).length;
      expect(histogram.buckets[i]).toBe(expected);
      below = limit;
    }
    expect(histogram.count).toBe(500);
    expect(histogram.buckets.reduce((a, b) => a + b)).toBe(500);
    expect(histogram.limits[9]).toBe(Math.max(...values));
  });

  it('takes one value', () => {
    expect(histogramOf([2, 2])).toEqual({
      min: 2,
      max: 2,
      count: 2,
      sum: 4,
      sumOfSquares: 8,
      limits: [2],
      buckets: [2],
    });
  });
});
