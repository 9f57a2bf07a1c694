import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../test/refusals.js';
import * as torch from './index.js';

interface Trace {
  traceEvents: {
    name: string;
    ph: string;
    cat?: string;
    ts?: number;
    dur?: number;
    args?: Record<string, unknown>;
  }[];
}

const folder = mkdtempSync(join(tmpdir(), 'fmoe-profile-'));
const path = join(folder, 'trace.json');
const read = (): Trace => JSON.parse(readFileSync(path, 'utf8')) as Trace;
afterAll(() => rmSync(folder, { recursive: true }));

describe('profile', () => {
  it('writes a Chrome trace with the operators that ran, forward and backward', () => {
    const result = torch.tidy(() => {
      const x = torch.ones([4, 4], { requiresGrad: true });
      return torch.profile(path, () => {
        x.mm(x).softmax(-1).sum().backward();
        return 7;
      });
    });
    expect(result).toBe(7);
    const events = read().traceEvents.filter(({ ph, cat }) => ph === 'X' && cat === 'cpu_op');
    const names = events.map(({ name }) => name);
    for (const name of [
      'aten::mm',
      'aten::softmax',
      'aten::_softmax',
      'aten::sum',
      'aten::_softmax_backward_data',
    ]) {
      expect(names).toContain(name);
    }
    // One product forward, two backward.
    expect(names.filter((name) => name === 'aten::mm')).toHaveLength(3);
    for (const { ts, dur } of events) {
      expect(ts).toBeGreaterThan(0);
      expect(dur).toBeGreaterThanOrEqual(0);
    }
  });

  it('records shapes when asked to', () => {
    torch.tidy(() => {
      torch.profile(path, () => torch.ones([3, 5]).mm(torch.ones([5, 2])), { recordShapes: true });
    });
    const product = read().traceEvents.find(({ name }) => name === 'aten::mm')!;
    expect(product.args!['Input Dims']).toEqual([
      [3, 5],
      [5, 2],
    ]);
  });

  it('ends, and writes, when the body throws', () => {
    const error = new Error('mine');
    expect(() =>
      torch.profile(path, () => {
        torch.tidy(() => torch.ones([1]).exp());
        throw error;
      }),
    ).toThrow(error);
    expect(read().traceEvents.some(({ name }) => name === 'aten::exp')).toBe(true);
    expect(torch.profile(path, () => 1)).toBe(1);
  });

  refuses([
    ['a path that is none', 'ERR_ARGUMENT', /'path'.*5/, () => torch.profile(wrong(5), () => 1)],
    [
      'a folder that is not there',
      'ERR_FILE',
      /cannot write.*nowhere/,
      () => torch.profile(join(folder, 'nowhere', 'x.json'), () => 1),
    ],
    ['a folder as a file', 'ERR_FILE', /cannot write/, () => torch.profile(folder, () => 1)],
    ['what is no function', 'ERR_ARGUMENT', /'body'/, () => torch.profile(path, wrong(5))],
    [
      'unknown options',
      'ERR_ARGUMENT',
      /'shapes'/,
      () => torch.profile(path, () => 1, wrong({ shapes: true })),
    ],
    ['promises', 'ERR_ARGUMENT', /promise/, () => torch.profile(path, async () => 1)],
    [
      'a profile inside of a profile',
      'ERR_ARGUMENT',
      /nest/,
      () => torch.profile(path, () => torch.profile(path, () => 1)),
    ],
  ]);
});
