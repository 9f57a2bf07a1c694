import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as torch from '../index.js';
import { findDuplicateKey } from './json-keys.js';
import { MAX_HEADER_BYTES } from './safetensors-header.js';

let folder = '';
const path = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fmoe-header-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A file with a header that is given as text, and zeros as data. */
function fileOf(header: string | Buffer, dataBytes: number, statedLength?: bigint): string {
  const json = Buffer.from(header as string);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(statedLength ?? BigInt(json.length));
  writeFileSync(path('bad'), Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
  return path('bad');
}

/** A file of any content. */
function rawFile(content: string | Buffer): string {
  writeFileSync(path('bad'), content);
  return path('bad');
}

const entry = (start: number, end: number, shape = [1], dtype = 'F32') => ({
  dtype,
  shape,
  data_offsets: [start, end],
});

const headers: [problem: string, header: unknown, dataBytes: number, message: RegExp][] = [
  ['not JSON', '{"x": ', 4, /not JSON in UTF-8/],
  ['JSON that is no object', '[1]', 0, /not a JSON object/],
  ['bytes that are no UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), 0, /not JSON in UTF-8/],
  ['an entry that is no object', { x: 3 }, 0, /entry of tensor 'x' is not an object/],
  ['an unknown dtype', { x: entry(0, 4, [1], 'F33') }, 4, /unknown dtype "F33"/],
  ['no dtype', { x: { shape: [1], data_offsets: [0, 4] } }, 4, /unknown dtype/],
  ['an unknown key', { x: { ...entry(0, 4), stride: [1] } }, 4, /unknown key 'stride'/],
  ['a negative size', { x: entry(0, 4, [-1]) }, 4, /shape \[-1\]/],
  ['a fractional size', { x: entry(0, 4, [0.5]) }, 4, /shape \[0.5\]/],
  ['a shape that is no list', { x: { ...entry(0, 4), shape: 1 } }, 4, /shape 1/],
  ['a shape beyond all memory', { x: entry(0, 4, [2 ** 40, 2 ** 40]) }, 4, /too large/],
  ['no offsets', { x: { dtype: 'F32', shape: [1] } }, 4, /data_offsets undefined/],
  ['three offsets', { x: { ...entry(0, 4), data_offsets: [0, 4, 8] } }, 4, /data_offsets \[0,4,8\]/],
  ['negative offsets', { x: entry(-4, 0) }, 4, /data_offsets \[-4,0\]/],
  ['a range of another size', { x: entry(0, 8) }, 8, /needs 4 bytes, its range has 8/],
  ['a range that runs backwards', { x: entry(4, 0) }, 4, /needs 4 bytes, its range has -4/],
  [
    'a range beyond the data',
    { x: entry(0, 4), y: entry(4, 8) },
    6,
    /'y' ends at byte 8, but there are 6 bytes/,
  ],
  ['overlapping ranges', { x: entry(0, 8, [2]), y: entry(4, 8) }, 8, /'y' starts at byte 4, inside/],
  ['a hole', { x: entry(0, 4), y: entry(8, 12) }, 12, /bytes 4 to 8 before tensor 'y'/],
  ['data that belong to nothing', { x: entry(0, 4) }, 8, /4 bytes after the last tensor/],
  ['metadata that is no object', { __metadata__: 'x' }, 0, /__metadata__ is not an object/],
  ['metadata that is no string', { __metadata__: { epoch: 3 } }, 0, /__metadata__.epoch is not a string/],
  ['half bytes', { x: entry(0, 1, [1], 'F4') }, 1, /does not fill whole bytes/],
];

describe('a header is refused for', () => {
  it.each(headers)('%s', (_problem, header, dataBytes, message) => {
    const json = typeof header === 'string' || Buffer.isBuffer(header) ? header : JSON.stringify(header);
    const file = fileOf(json, dataBytes);
    expect(() => torch.loadSafetensors(file)).toThrow(
      expect.objectContaining({ code: 'ERR_FILE', message: expect.stringMatching(message) }),
    );
    expect(() => torch.loadSafetensors(file)).toThrow(file);
  });

  it('names that occur twice', () => {
    const one = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}';
    const file = fileOf(`{"x":${one},"\\u0078":${one}}`, 4);
    expect(() => torch.loadSafetensors(file)).toThrow(/name 'x' occurs twice/);
    const inside = fileOf('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"dtype":"I32"}}', 4);
    expect(() => torch.loadSafetensors(inside)).toThrow(/name 'dtype' occurs twice/);
  });
});

describe('a file is refused', () => {
  it.each([
    ['when it is missing', () => path('nowhere'), /there is no such file/],
    ['when it is a folder', () => folder, /folder/],
    ['when it is empty', () => rawFile(''), /has 0 bytes/],
    ['when it is shorter than the length field', () => rawFile('abc'), /has 3 bytes/],
    [
      'when its header is longer than the file',
      () => fileOf('{}', 0, 100n),
      /should have 100 bytes, but only 2/,
    ],
    [
      'when its header is too long',
      () => fileOf('{}', 0, BigInt(MAX_HEADER_BYTES) + 1n),
      /100000000 are the most/,
    ],
    ['when the length is absurd', () => fileOf('{}', 0, 2n ** 64n - 1n), /18446744073709551615 bytes/],
    [
      'when it is a zip archive of torch.save',
      () => rawFile(Buffer.from('PK\x03\x04\x00\x00\x08\x08model/data.pkl')),
      /zip archive, as files of torch.save/,
    ],
    ['when it is text', () => rawFile('hello, this is a text file'), /no safetensors file/],
  ] as const)('%s', (_when, make, message) => {
    expect(() => torch.loadSafetensors(make())).toThrow(
      expect.objectContaining({ code: 'ERR_FILE', message: expect.stringMatching(message) }),
    );
  });

  it('at every length it may be truncated to', () => {
    torch.tidy(() => {
      const whole = path('whole');
      torch.saveSafetensors(whole, { x: torch.ones([3]), y: torch.ones([2], { dtype: 'bool' }) }, { k: 'v' });
      const bytes = readFileSync(whole);
      const before = torch.memory().tensors;
      for (let length = 0; length < bytes.length; length++) {
        writeFileSync(path('cut'), bytes);
        truncateSync(path('cut'), length);
        expect(() => torch.loadSafetensors(path('cut'))).toThrow(
          expect.objectContaining({ code: 'ERR_FILE' }),
        );
      }
      expect(torch.memory().tensors).toBe(before);
      writeFileSync(path('cut'), Buffer.concat([bytes, Buffer.alloc(1)]));
      expect(() => torch.loadSafetensors(path('cut'))).toThrow(/1 bytes after the last tensor/);
    });
  });

  it('when a bool is neither 0 nor 1', () => {
    const file = fileOf(JSON.stringify({ ok: entry(0, 4), b: entry(4, 6, [2], 'BOOL') }), 6);
    const bytes = readFileSync(file);
    bytes[bytes.length - 1] = 2;
    writeFileSync(file, bytes);
    torch.tidy(() => {
      const before = torch.memory().tensors;
      expect(() => torch.loadSafetensors(file)).toThrow(/'b' of dtype BOOL/);
      expect(torch.memory().tensors).toBe(before);
    });
  });
});

describe('saveSafetensors refuses', () => {
  // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
  const wrong = (value: unknown): any => value;
  it.each([
    ['a value that is no tensor', 'ERR_ARGUMENT', /'x' is not a tensor/, () => ({ x: wrong([1, 2]) }), {}],
    ['the reserved name', 'ERR_ARGUMENT', /__metadata__/, () => ({ __metadata__: torch.ones([1]) }), {}],
    [
      'a name that is half a character',
      'ERR_ARGUMENT',
      /not valid Unicode/,
      () => ({ '\ud800': torch.ones([1]) }),
      {},
    ],
    ['metadata that is no string', 'ERR_ARGUMENT', /metadata.step is number/, () => ({}), { step: wrong(3) }],
    [
      'a disposed tensor',
      'ERR_DISPOSED',
      /./,
      () => {
        const x = torch.ones([1]);
        x.dispose();
        return { x };
      },
      {},
    ],
  ] as const)('%s', (_what, code, message, tensors, metadata) => {
    torch.tidy(() => {
      expect(() => torch.saveSafetensors(path('refused'), wrong(tensors()), metadata)).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) }),
      );
    });
  });

  it('a folder that does not exist, and a target that is a folder', () => {
    torch.tidy(() => {
      const x = torch.ones([1]);
      for (const target of [path('no/such/folder/file'), folder]) {
        expect(() => torch.saveSafetensors(target, { x })).toThrow(
          expect.objectContaining({ code: 'ERR_FILE' }),
        );
      }
    });
  });
});

describe('findDuplicateKey', () => {
  it('sees only keys of one object', () => {
    expect(findDuplicateKey('{"a":{"a":1},"b":["a","a",{"a":2}],"c":"a"}')).toBeUndefined();
    expect(findDuplicateKey('{"a:{":1,"b":"}\\"a:{","c":[{"x":1,"y":2,"x":3}]}')).toBe('x');
    expect(findDuplicateKey('{"q\\"":1,"q\\u0022":2}')).toBe('q"');
    expect(findDuplicateKey('{}')).toBeUndefined();
  });
});
