import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { missingPython, runPython } from '../../../test/python.js';
import * as torch from '../../index.js';
import { describeEachDevice, describeUnless } from '../../testing/index.js';
import { describe as describeValue, writeArchive } from './save.js';
import { ZipWriter } from './zip-writer.js';

const { loadTorchFile, saveTorchFile } = torch;
type Tensors = Record<string, torch.Tensor>;

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../../test/fixtures/${name}`, import.meta.url));
const listed: Record<string, { dtype: torch.DType; shape: number[]; bytes: string }> = JSON.parse(
  readFileSync(fixture('pt.json'), 'utf8'),
);

let folder = '';
const path = (name: string): string => join(folder, name);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fmoe-pt-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function hexOf(x: torch.Tensor): string {
  const data = x.contiguous().data();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');
}

function expectFixture(value: torch.TorchValue): void {
  const tensors = value as Tensors;
  expect(Object.keys(tensors)).toEqual(Object.keys(listed));
  for (const [name, { dtype, shape, bytes }] of Object.entries(listed)) {
    const x = tensors[name]!;
    expect([name, x.dtype, x.shape, hexOf(x)]).toEqual([name, dtype, shape, bytes]);
  }
}

/** Writes an archive whose numbers take 64 bits from a limit on. */
function writeWide(name: string, value: unknown, limit: number): void {
  const tensors: torch.Tensor[] = [];
  const pickle = describeValue(value, tensors);
  const file = openSync(path(name), 'w');
  writeArchive(new ZipWriter(file, limit), pickle, tensors);
  closeSync(file);
}

/** An archive around any pickle. */
function writePickle(name: string, pickle: Buffer): string {
  const file = openSync(path(name), 'w');
  writeArchive(new ZipWriter(file), pickle, []);
  closeSync(file);
  return path(name);
}

describe('a file of torch.save', () => {
  it('is read bit for bit, in every dtype', () => {
    torch.tidy(() => expectFixture(loadTorchFile(fixture('pt-all.pt'))));
  });

  it('is read with its containers, plain values, views and parameters', () => {
    torch.tidy(() => {
      const value = loadTorchFile(fixture('pt-checkpoint.pt')) as Record<string, never>;
      const { model, parameter, base, transposed, row, expanded } = value as unknown as Tensors & {
        model: Tensors;
      };
      expect(model['weight']!.toArray()).toEqual([
        [0, 1],
        [2, 3],
        [4, 5],
      ]);
      expect(model['bias']!.toArray()).toEqual([0, 1, 2]);
      expect(parameter!.toArray()).toEqual([0, 1, 2]);
      expect(parameter!.requiresGrad).toBe(false);
      expect(transposed!.toArray()).toEqual(base!.t().toArray());
      expect(row!.toArray()).toEqual([4, 5, 6, 7]);
      expect(expanded!.toArray()).toEqual([5, 5, 5, 5]);
      base!.fill_(1);
      expect(row!.toArray()).toEqual([1, 1, 1, 1]);
      expect(value['optimizer']).toEqual({
        state: { 0: { step: 7 } },
        param_groups: [{ lr: 0.1, betas: [0.9, 0.999] }],
      });
      const large = [256, 65536, -1, 2 ** 40, -(2n ** 70n), 0.5, 'text', '😀', [], {}];
      expect(value['values']).toEqual([null, true, false, 0, 255, ...large]);
      expect(value['size']).toEqual([3, 4]);
      expect(value['ordered']).toEqual({ a: 1, b: [2] });
    });
  });

  it('leaves no tensors behind but those that it holds', () => {
    torch.tidy(() => {
      const before = torch.memory().tensors;
      torch.tidy(() => void loadTorchFile(fixture('pt-all.pt')));
      expect(torch.memory().tensors).toBe(before);
      loadTorchFile(fixture('pt-all.pt'));
      expect(torch.memory().tensors).toBe(before + Object.keys(listed).length);
    });
  });
});

describe('a file that holds objects of other classes', () => {
  it('has null in their places, where they are to be skipped', () => {
    torch.tidy(() => {
      const value = loadTorchFile(fixture('pt-objects.pt'), { skipObjects: true });
      const { model, ...others } = value as { model: Tensors };
      expect(others).toEqual({
        args: null,
        numpy: ['MT19937', null, 624, 0, 0],
        default: null,
        queue: null,
        set: null,
        dtype: null,
        method: null,
        keys: { kept: 4 },
      });
      expect(model['weight']!.toArray()).toEqual([0, 1, 2]);
    });
  });

  it('is refused otherwise, and where a pickle is damaged', () => {
    expect(() => loadTorchFile(fixture('pt-objects.pt'))).toThrow(
      expect.objectContaining({ code: 'ERR_FILE', message: expect.stringMatching(/argparse\.Namespace/) }),
    );
    for (const code of [
      'ctorch._utils\n_rebuild_tensor_v2\n)R.',
      'K\x01)R.',
      'K\x01}b.',
      'cposix\nsystem\nK\x01R.',
    ]) {
      const file = writePickle('damaged.pt', Buffer.from(`\x80\x02${code}`, 'latin1'));
      expect(() => loadTorchFile(file, { skipObjects: true })).toThrow(
        expect.objectContaining({ code: 'ERR_FILE', message: expect.stringMatching(/damaged/) }),
      );
    }
  });

  it('runs nothing of it', () => {
    const mark = path('mark');
    const command = `touch ${mark}`;
    const text = `\x80\x02cposix\nsystem\nX${String.fromCharCode(command.length)}\0\0\0${command}\x85R.`;
    const file = writePickle('run.pt', Buffer.from(text, 'latin1'));
    expect(loadTorchFile(file, { skipObjects: true })).toBeNull();
    expect(existsSync(mark)).toBe(false);
  });
});

describe('a file written here', () => {
  it('is read back bit for bit, and the same bytes each time', () => {
    torch.tidy(() => {
      const value = loadTorchFile(fixture('pt-all.pt'));
      saveTorchFile(path('a.pt'), value);
      saveTorchFile(path('b.pt'), value);
      expectFixture(loadTorchFile(path('a.pt')));
      expect(readFileSync(path('a.pt'))).toEqual(readFileSync(path('b.pt')));
    });
  });

  it.each([1, 200, 2000])('is read back when numbers from %d on take 64 bits', (limit) => {
    torch.tidy(() => {
      writeWide('wide.pt', loadTorchFile(fixture('pt-all.pt')), limit);
      expectFixture(loadTorchFile(path('wide.pt')));
    });
  });

  it('keeps one copy of a tensor that is there twice', () => {
    torch.tidy(() => {
      const x = torch.randn([1000]);
      saveTorchFile(path('twice.pt'), { a: x, b: [x] });
      expect(readFileSync(path('twice.pt')).length).toBeLessThan(6000);
      const value = loadTorchFile(path('twice.pt')) as { a: torch.Tensor; b: [torch.Tensor] };
      value.a.zero_();
      expect(value.b[0].sum().item()).toBe(0);
    });
  });

  it('is refused for what is no plain value', () => {
    const self: unknown[] = [];
    self.push(self);
    for (const value of [() => 0, new Date(), undefined, self]) {
      expect(() => saveTorchFile(path('bad.pt'), { value } as never)).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT' }),
      );
    }
  });
});

describeUnless(missingPython, 'PyTorch', () => {
  it('reads what was written here, with weights_only', () => {
    torch.tidy(() => {
      const all = loadTorchFile(fixture('pt-all.pt'));
      saveTorchFile(path('plain.pt'), all);
      writeWide('wide.pt', all, 1);
      saveTorchFile(path('checkpoint.pt'), loadTorchFile(fixture('pt-checkpoint.pt')));
      runPython('interop/check_pt.py', ['plain.pt', 'wide.pt', 'checkpoint.pt'].map(path));
    });
  });
});

describeEachDevice('loadTorchFile', (device) => {
  it('puts the tensors on a device', () => {
    torch.tidy(() => {
      const { f32 } = loadTorchFile(fixture('pt-all.pt'), { device }) as Tensors;
      expect(f32!.device.startsWith(device)).toBe(true);
      expect(hexOf(f32!.cpu())).toBe(listed['f32']!.bytes);
    });
  });
});

describe('loadTorchFile refuses', () => {
  const text = (code: string): Buffer => Buffer.from(code, 'latin1');
  it.each([
    ['objects of other classes', () => fixture('pt-custom-class.pt'), 'ERR_FILE', /Custom/],
    ['complex numbers', () => fixture('pt-complex.pt'), 'ERR_DTYPE', /ComplexFloatStorage/],
    ['the format before 1.6', () => fixture('pt-legacy.pt'), 'ERR_FILE', /before PyTorch 1\.6/],
    ['another format', () => fixture('pt.json'), 'ERR_FILE', /no zip archive/],
    ['a missing file', () => path('missing.pt'), 'ERR_FILE', /no such file/],
    [
      'a pickle that would run a command',
      () => writePickle('run.pt', text('\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R.')),
      'ERR_FILE',
      /holds a posix\.system/,
    ],
    [
      'a known name called with nonsense',
      () => writePickle('call.pt', text('\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.')),
      'ERR_FILE',
      /pickle is damaged/,
    ],
    [
      'a list that holds itself',
      () => writePickle('self.pt', text('\x80\x02]q\0h\0a.')),
      'ERR_FILE',
      /contains itself/,
    ],
    [
      'a string longer than the file',
      () => writePickle('long.pt', text('\x80\x02X\xff\xff\xff\xff.')),
      'ERR_FILE',
      /damaged/,
    ],
    ['an empty stack', () => writePickle('empty.pt', text('\x80\x02.')), 'ERR_FILE', /damaged/],
  ])('%s', (_, file, code, message) => {
    torch.tidy(() => {
      const before = torch.memory().tensors;
      expect(() => loadTorchFile(file())).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) }),
      );
      expect(torch.memory().tensors).toBe(before);
    });
  });

  it('a file cut off anywhere, and one with any byte changed in pickle, sizes or data, or reads the same', () => {
    const whole = readFileSync(fixture('pt-checkpoint.pt'));
    torch.tidy(() => {
      for (let length = 0; length < whole.length; length += 97) {
        writeFileSync(path('cut.pt'), whole.subarray(0, length));
        expect(() => loadTorchFile(path('cut.pt'))).toThrow(expect.objectContaining({ code: 'ERR_FILE' }));
      }
      for (let at = 0; at < whole.length; at += 41) {
        const changed = Buffer.from(whole);
        changed[at] = (changed[at] as number) ^ 0x55;
        writeFileSync(path('changed.pt'), changed);
        try {
          torch.tidy(() => void loadTorchFile(path('changed.pt')));
        } catch (error) {
          expect(torch.FmoeError.isInstance(error)).toBe(true);
        }
      }
    });
  });
});
