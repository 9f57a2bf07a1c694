import { afterAll, describe, expect, it } from 'vitest';
import * as torch from '../index.js';
import { describeEachDevice, missingReason, type TestDevice } from './devices.js';

const ran: TestDevice[] = [];

describeEachDevice('a suite for each device', (device) => {
  it('runs on the device', () => {
    ran.push(device);
    torch.tidy(() => {
      expect(torch.zeros([1], { device }).device.startsWith(device)).toBe(true);
    });
  });
});

describe('missingReason', () => {
  it('is none for the CPU and follows the machine for CUDA', () => {
    expect(missingReason('cpu')).toBeUndefined();
    expect(missingReason('cuda') === undefined).toBe(torch.cuda.isAvailable());
  });
});

afterAll(() => {
  expect(ran).toEqual(torch.cuda.isAvailable() ? ['cpu', 'cuda'] : ['cpu']);
});
