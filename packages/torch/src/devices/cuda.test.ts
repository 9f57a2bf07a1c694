import { expect, it } from 'vitest';
import { refuses } from '../../test/refusals.js';
import * as torch from '../index.js';
import { describeUnless, expectAllClose, missingReason } from '../testing/index.js';

const { cuda } = torch;
const missing = missingReason('cuda');

describeUnless(missing, 'CUDA devices', () => {
  it('are counted, and one is current', () => {
    expect(cuda.isAvailable()).toBe(true);
    expect(cuda.deviceCount()).toBeGreaterThan(0);
    const current = cuda.currentDevice();
    cuda.setDevice(current);
    expect(cuda.currentDevice()).toBe(current);
    expect(torch.tidy(() => torch.zeros([1], { device: 'cuda' }).device)).toBe(`cuda:${current}`);
  });

  it('compute what the CPU computes', () => {
    torch.tidy(() => {
      const [a, b] = [
        torch.randn([16, 32], { dtype: 'float64' }),
        torch.randn([32, 8], { dtype: 'float64' }),
      ];
      expectAllClose(a.cuda().matmul(b.cuda()).cpu(), a.matmul(b));
      expect(() => a.add(a.cuda())).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    });
  });

  it('count their memory', () => {
    cuda.synchronize();
    cuda.emptyCache();
    cuda.resetPeakMemory();
    const before = cuda.memoryStatistics();
    const mebibyte = 2 ** 20;
    torch.tidy(() => {
      torch.zeros([16 * mebibyte], { dtype: 'uint8', device: 'cuda' });
      const during = cuda.memoryStatistics();
      expect(during.allocated - before.allocated).toBe(16 * mebibyte);
      expect(during.reserved).toBeGreaterThanOrEqual(during.allocated);
    });
    const after = cuda.memoryStatistics();
    expect(after.allocated).toBe(before.allocated);
    expect(after.allocatedPeak).toBeGreaterThanOrEqual(before.allocated + 16 * mebibyte);
    cuda.emptyCache();
    expect(cuda.memoryStatistics().reserved).toBeLessThanOrEqual(after.reserved);
  });

  it('stay flat over steps with scopes', () => {
    const step = () =>
      torch.tidy(() => {
        const x = torch.randn([256, 256], { device: 'cuda', requiresGrad: true });
        x.mm(x).tanh().sum().backward();
      });
    step();
    const before = cuda.memoryStatistics().allocated;
    for (let i = 0; i < 50; i++) step();
    cuda.synchronize();
    expect(cuda.memoryStatistics().allocated).toBe(before);
  });

  it('go on after running out of memory', () => {
    torch.tidy(() => {
      let caught: unknown;
      try {
        torch.ones([2 ** 40], { device: 'cuda' });
      } catch (error) {
        caught = error;
      }
      expect(caught).toMatchObject({ code: 'ERR_OUT_OF_MEMORY', op: 'aten::ones' });
      expect((caught as Error).message).toMatch(/1099511627776/);
      expect(torch.ones([2], { device: 'cuda' }).sum().item()).toBe(2);
    });
  });

  it('queue work in streams, and wait for events', () => {
    torch.tidy(() => {
      const x = torch.ones([512, 512], { device: 'cuda' });
      const [side, main] = [cuda.newStream(), cuda.currentStream()];
      const start = new cuda.Event({ enableTiming: true });
      const end = new cuda.Event({ enableTiming: true });
      side.waitStream(main);
      const y = cuda.withStream(side, () => {
        start.record();
        let result = x;
        for (let i = 0; i < 10; i++) result = result.mm(x).div(512);
        end.record();
        return result;
      });
      main.waitEvent(end);
      end.synchronize();
      expect([end.query(), side.query()]).toEqual([true, true]);
      expect(start.elapsedTime(end)).toBeGreaterThan(0);
      expectAllClose(y, torch.ones([512, 512], { device: 'cuda' }), { rtol: 1e-3, atol: 1e-3 });
      side.synchronize();
    });
  });

  it('are read without blocking', async () => {
    const scope = torch.scope();
    const x = torch.arange(6, { device: 'cuda' }).reshape([2, 3]);
    const pending = Promise.all([x.toArrayAsync(), x.sum().itemAsync()]);
    expect(await pending).toEqual([
      [
        [0, 1, 2],
        [3, 4, 5],
      ],
      15,
    ]);
    scope.dispose();
    expect(torch.memory().scopes).toBe(0);
  });
});

describeUnless(missing ? undefined : 'a CUDA device is available', 'without CUDA', () => {
  const x = () => torch.zeros([1]);
  it('says so', () => {
    expect([cuda.isAvailable(), cuda.deviceCount()]).toEqual([false, 0]);
  });
  const none = /no CUDA device is available/;
  refuses([
    ['tensors', 'ERR_DEVICE', none, () => torch.zeros([1], { device: 'cuda' })],
    ['moving', 'ERR_DEVICE', none, () => x().cuda()],
    ['moving by number', 'ERR_DEVICE', none, () => x().cuda(1)],
    ['likes', 'ERR_DEVICE', none, () => torch.zerosLike(x(), { device: 'cuda' })],
    ['random states', 'ERR_DEVICE', none, () => torch.getRngState('cuda')],
    ['generators', 'ERR_DEVICE', none, () => new torch.Generator('cuda')],
    ['synchronising', 'ERR_DEVICE', none, () => cuda.synchronize()],
    ['memory statistics', 'ERR_DEVICE', none, () => cuda.memoryStatistics()],
    ['choosing a device', 'ERR_DEVICE', none, () => cuda.setDevice(0)],
    ['streams', 'ERR_DEVICE', none, () => cuda.newStream()],
    ['events', 'ERR_DEVICE', none, () => new cuda.Event()],
  ]);

  it('lets autocast for CUDA pass', () => {
    expect(torch.tidy(() => torch.autocast({ device: 'cuda' }, () => x().dtype))).toBe('float32');
  });
});
