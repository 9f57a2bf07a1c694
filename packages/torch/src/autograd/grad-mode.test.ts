import { afterEach, describe, expect, it } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import * as torch from '../index.js';

afterEach(() => {
  expect(torch.isGradEnabled()).toBe(true);
});

const records = (): boolean => torch.tidy(() => torch.ones([1], { requiresGrad: true }).mul(2).requiresGrad);

describe('grad modes', () => {
  it('nest', () => {
    expect(records()).toBe(true);
    torch.noGrad(() => {
      expect([records(), torch.isGradEnabled()]).toEqual([false, false]);
      torch.enableGrad(() => {
        expect(records()).toBe(true);
        torch.noGrad(() => expect(records()).toBe(false));
        expect(records()).toBe(true);
      });
      expect(records()).toBe(false);
    });
    expect(records()).toBe(true);
  });

  it('give back what the body gives, and end when it throws', () => {
    expect(torch.noGrad(() => 7)).toBe(7);
    const error = new Error('mine');
    expect(() =>
      torch.noGrad(() => {
        throw error;
      }),
    ).toThrow(error);
    expect(records()).toBe(true);
  });

  it('let leaves be written over', () => {
    torch.tidy(() => {
      const x = torch.ones([2], { requiresGrad: true });
      torch.noGrad(() => x.mul_(3));
      expect([x.toArray(), x.requiresGrad, x.isLeaf]).toEqual([[3, 3], true, true]);
    });
  });

  it('are switched by hand', () => {
    expect(torch.setGradEnabled(false)).toBe(true);
    expect(records()).toBe(false);
    expect(torch.setGradEnabled(true)).toBe(false);
  });

  refuses([
    ['a promise', 'ERR_ARGUMENT', /noGrad\(\).*promise/, () => torch.noGrad(async () => 1)],
    [
      'a promise in enableGrad',
      'ERR_ARGUMENT',
      /enableGrad\(\).*promise/,
      () => torch.enableGrad(async () => 1),
    ],
    ['what is no function', 'ERR_ARGUMENT', /'body'.*5/, () => torch.noGrad(wrong(5))],
    ['a switch that is none', 'ERR_ARGUMENT', /'x'/, () => torch.setGradEnabled(wrong('x'))],
  ]);
});
