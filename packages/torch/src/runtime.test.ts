import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../test/refusals.js';
import * as torch from './index.js';

const folder = mkdtempSync(join(tmpdir(), 'fmoe-runtime-'));
const text = join(folder, 'text.so');
writeFileSync(text, 'this is no library');
const cut = join(folder, 'cut.so');
copyFileSync(process.execPath, cut);
writeFileSync(cut, Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0, 0, 0]));
afterAll(() => rmSync(folder, { recursive: true }));

describe('threads', () => {
  it('can be counted and set', () => {
    const before = torch.getNumThreads();
    torch.setNumThreads(2);
    expect(torch.getNumThreads()).toBe(2);
    torch.setNumThreads(before);
    expect(torch.getNumThreads()).toBe(before);
  });

  refuses([
    ['none', 'ERR_ARGUMENT', /'threads'.*at least 1.*0/, () => torch.setNumThreads(0)],
    ['negative numbers', 'ERR_ARGUMENT', /-2/, () => torch.setNumThreads(-2)],
    ['fractions', 'ERR_ARGUMENT', /1.5/, () => torch.setNumThreads(1.5)],
    ['too many', 'ERR_ARGUMENT', /1024/, () => torch.setNumThreads(1e12)],
    ['strings', 'ERR_ARGUMENT', /'x'/, () => torch.setNumThreads(wrong('x'))],
  ]);
});

describe('the memory of large tensors', () => {
  // Taken from the system anew, every page would be a fault.
  it('is kept for the next ones', () => {
    const bytes = 64 * 2 ** 20;
    const once = (): void => torch.tidy(() => void torch.ones([bytes], { dtype: 'uint8' }));
    for (let i = 0; i < 12; i++) once();
    const faults = Array.from({ length: 10 }, () => {
      const before = process.resourceUsage().minorPageFault;
      once();
      return process.resourceUsage().minorPageFault - before;
    });
    // Others in this process may have some of their own.
    expect(Math.min(...faults)).toBeLessThan(bytes / 4096 / 4);
  });
});

describe('the version', () => {
  it('is that of libtorch', () => {
    expect(torch.libtorchVersion()).toMatch(/^2\.\d+\.\d+/);
  });
});

describe('loadLibrary refuses', () => {
  refuses([
    [
      'a file that is not there',
      'ERR_FILE',
      /there is no file .*nothing\.so/,
      () => torch.loadLibrary(join(folder, 'nothing.so')),
    ],
    ['a relative path to nowhere', 'ERR_FILE', /there is no file \//, () => torch.loadLibrary('nothing.so')],
    [
      'text',
      'ERR_SETUP',
      /cannot load .*text\.so.*invalid ELF header|file too short/,
      () => torch.loadLibrary(text),
    ],
    ['a library that was cut off', 'ERR_SETUP', /cannot load .*cut\.so/, () => torch.loadLibrary(cut)],
    ['a folder', 'ERR_SETUP', /cannot load/, () => torch.loadLibrary(folder)],
    ['an empty path', 'ERR_SETUP', /cannot load|path/, () => torch.loadLibrary('')],
    ['a path that is none', 'ERR_ARGUMENT', /'path'.*5/, () => torch.loadLibrary(wrong(5))],
    [
      'a path too long for the system',
      'ERR_FILE',
      /there is no file/,
      () => torch.loadLibrary(`/${'a/'.repeat(5000)}x.so`),
    ],
  ]);
});
