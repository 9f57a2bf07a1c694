import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { missingPython, runPython } from '../../test/python.js';
import * as torch from '../index.js';
import { describeEachDevice, describeUnless, expectIdentical } from '../testing/index.js';

const { loadSafetensors, SafetensorsFile, saveSafetensors } = torch;

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../test/fixtures/${name}`, import.meta.url));
const all = fixture('safetensors-all.safetensors');
const listed: Record<string, { dtype: torch.DType; shape: number[]; bytes: string }> = JSON.parse(
  readFileSync(fixture('safetensors.json'), 'utf8'),
);

let folder = '';
const path = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fmoe-safetensors-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function hexOf(x: torch.Tensor): string {
  const data = x.data();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');
}

function expectFixture(tensors: Record<string, torch.Tensor>): void {
  expect(Object.keys(tensors).sort()).toEqual(Object.keys(listed).sort());
  for (const [name, { dtype, shape, bytes }] of Object.entries(listed)) {
    const x = tensors[name]!;
    expect([name, x.dtype, x.shape, hexOf(x)]).toEqual([name, dtype, shape, bytes]);
  }
}

describe('a file written by Python', () => {
  it('is read bit for bit, in every dtype', () => {
    torch.tidy(() => {
      const { tensors, metadata } = loadSafetensors(all);
      expectFixture(tensors);
      expect(metadata).toEqual({ step: '12' });
      expect(Object.getPrototypeOf(tensors)).toBe(Object.prototype);
    });
  });

  it('is read without metadata and without tensors', () => {
    torch.tidy(() => {
      const { tensors, metadata } = loadSafetensors(fixture('safetensors-plain.safetensors'));
      expect(tensors['x']!.toArray()).toEqual([1, 2]);
      expect(metadata).toEqual({});
      expect(loadSafetensors(fixture('safetensors-empty.safetensors'))).toEqual({
        tensors: {},
        metadata: {},
      });
    });
  });

  it('is written again byte for byte', () => {
    torch.tidy(() => {
      const { tensors, metadata } = loadSafetensors(all);
      const reversed = Object.fromEntries(Object.entries(tensors).reverse());
      saveSafetensors(path('again.safetensors'), reversed, metadata);
      expect(readFileSync(path('again.safetensors'))).toEqual(readFileSync(all));
      for (const name of ['safetensors-plain.safetensors', 'safetensors-empty.safetensors']) {
        saveSafetensors(path(name), loadSafetensors(fixture(name)).tensors);
        expect(readFileSync(path(name))).toEqual(readFileSync(fixture(name)));
      }
    });
  });
});

describeUnless(missingPython, 'a file written here', () => {
  it('is read by Python, which writes the same bytes', () => {
    torch.tidy(() => {
      const { tensors } = loadSafetensors(all);
      saveSafetensors(path('here.safetensors'), tensors, { step: '12' });
      const output = runPython('interop/check_safetensors.py', [
        path('here.safetensors'),
        path('there.safetensors'),
      ]);
      expect(output).toContain('19 tensors are equal');
      expect(readFileSync(path('there.safetensors'))).toEqual(readFileSync(path('here.safetensors')));
      expectFixture(loadSafetensors(path('there.safetensors')).tensors);
    });
  });

  it('keeps metadata, and does not depend on the order of keys', () => {
    torch.tidy(() => {
      const [a, b] = [torch.randn([3]), torch.randn([2, 2]).to('float64')];
      saveSafetensors(path('1'), { a, b }, { x: 'é\n"', config: '{"d": 1}' });
      saveSafetensors(path('2'), { b, a }, { config: '{"d": 1}', x: 'é\n"' });
      expect(readFileSync(path('1'))).toEqual(readFileSync(path('2')));
      expect(loadSafetensors(path('1')).metadata).toEqual({ x: 'é\n"', config: '{"d": 1}' });
      expect(readFileSync(path('1')).readBigUInt64LE() % 8n).toBe(0n);
    });
  });

  it('holds views row-major and parameters without their graph', () => {
    torch.tidy(() => {
      const base = torch.arange(12, { requiresGrad: true }).reshape([3, 4]);
      saveSafetensors(path('views'), { t: base.t(), row: base.at(1), column: base.at('...', 2) });
      const { tensors } = loadSafetensors(path('views'));
      expect(tensors['t']!.toArray()).toEqual([
        [0, 4, 8],
        [1, 5, 9],
        [2, 6, 10],
        [3, 7, 11],
      ]);
      expect(tensors['row']!.toArray()).toEqual([4, 5, 6, 7]);
      expect(tensors['column']!.toArray()).toEqual([2, 6, 10]);
      expect(tensors['t']!.requiresGrad).toBe(false);
    });
  });

  it('replaces another as a whole, and leaves the old one when writing fails', () => {
    torch.tidy(() => {
      const target = path('replaced');
      saveSafetensors(target, { x: torch.ones([2]) });
      saveSafetensors(target, { x: torch.zeros([2]) }, {}, { fsync: false });
      const before = readFileSync(target);
      const gone = torch.ones([2]);
      const broken = { a: torch.ones([2]), z: gone };
      Object.defineProperty(gone, 'data', {
        value: () => {
          throw new Error('stopped');
        },
      });
      expect(() => saveSafetensors(target, broken)).toThrow('stopped');
      expect(readFileSync(target)).toEqual(before);
      expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
      saveSafetensors(target, { x: torch.ones([1]) }, {}, { atomic: false });
      expect(loadSafetensors(target).tensors['x']!.toArray()).toEqual([1]);
    });
  });
});

describe('SafetensorsFile', () => {
  it('reads single tensors and tells about the others', () => {
    torch.tidy(() => {
      const file = new SafetensorsFile(all);
      const before = torch.memory().tensors;
      expect(file.info('f32')).toEqual({
        dtype: 'float32',
        storedDType: 'F32',
        shape: [2, 3, 4],
        byteLength: 96,
      });
      expect(file.has('f32')).toBe(true);
      expect(file.has('nothing')).toBe(false);
      expect(file.names()).toHaveLength(19);
      expect(torch.memory().tensors).toBe(before);
      expect(hexOf(file.tensor('bf16'))).toBe(listed['bf16']!.bytes);
      expect(torch.memory().tensors).toBe(before + 1);
      file.close();
      file.close();
      expect(() => file.tensor('f32')).toThrow(expect.objectContaining({ code: 'ERR_FILE' }));
    });
  });

  it('names the tensors there are when asked for another', () => {
    const file = new SafetensorsFile(all);
    expect(() => file.tensor('weight')).toThrow(/no tensor 'weight'.*'i64', 'f64'.* and 14 more/);
    expect(() => file.info('weight')).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    file.close();
  });

  it('knows the size of dtypes that tensors do not have, and refuses to read only those', () => {
    const header = JSON.stringify({
      a: { dtype: 'F8_E4M3', shape: [3], data_offsets: [0, 3] },
      b: { dtype: 'F4', shape: [2], data_offsets: [3, 4] },
      c: { dtype: 'U32', shape: [1], data_offsets: [4, 8] },
      d: { dtype: 'U8', shape: [1], data_offsets: [8, 9] },
    });
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    writeFileSync(path('foreign'), Buffer.concat([length, Buffer.from(header), Buffer.alloc(9, 5)]));
    torch.tidy(() => {
      const file = new SafetensorsFile(path('foreign'));
      expect(file.info('a')).toMatchObject({ dtype: undefined, storedDType: 'F8_E4M3' });
      expect(() => file.tensor('a')).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }));
      expect(file.tensor('d').toArray()).toEqual([5]);
      file.close();
      const before = torch.memory().tensors;
      expect(() => loadSafetensors(path('foreign'))).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }));
      expect(torch.memory().tensors).toBe(before);
    });
  });
});

describeEachDevice('tensors on devices', (device) => {
  it('are written from and read to the device', () => {
    torch.tidy(() => {
      const x = torch.randn([5, 3], { device }).to('bfloat16');
      saveSafetensors(path(device), { x });
      const { tensors } = loadSafetensors(path(device), { device });
      expect(tensors['x']!.device.startsWith(device)).toBe(true);
      expectIdentical(tensors['x']!, x);
    });
  });
});
