import { afterEach, expect, it } from 'vitest';
import * as torch from '../index.js';
import { describeEachDevice } from '../testing/index.js';
import { flagOnDevice, raiseDeviceErrors, watchDevice } from './device-errors.js';

const problem = (message: string) => () => new torch.FmoeError('ERR_INDEX', message);

describeEachDevice('errors found on a device', (device) => {
  afterEach(() => {
    cleanUp();
  });

  it('come at the next read of any tensor, once', () => {
    torch.tidy(() => {
      const x = torch.ones([2], { device });
      flagOnDevice('test', torch.tensor([0, 1], { dtype: 'bool', device }), problem('first'));
      for (const read of [() => x.sum().item(), () => x.toArray(), () => x.data()]) {
        expect(read).toThrow('first');
        expect(read).not.toThrow();
        flagOnDevice('test', torch.tensor([true], { dtype: 'bool', device }), problem('first'));
      }
    });
  });

  it('do not come when all is well, and nothing stays behind', () => {
    torch.tidy(() => {
      const good = torch.zeros([3], { dtype: 'bool', device });
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) flagOnDevice('test', good, problem('never'));
      raiseDeviceErrors();
      expect(torch.memory().tensors).toBe(before);
    });
  });

  it('outlive the scope of the check and are joined under one key', () => {
    torch.tidy(() => {
      torch.tidy(() => flagOnDevice('test', torch.ones([1], { dtype: 'bool', device }), problem('first')));
      torch.tidy(() => flagOnDevice('test', torch.zeros([1], { dtype: 'bool', device }), problem('second')));
      expect(raiseDeviceErrors).toThrow('first');
    });
  });

  it('are asked for once a key, at a read, and may read themselves', () => {
    torch.tidy(() => {
      const x = torch.ones([2], { device });
      let asked = 0;
      const check = () => {
        asked += 1;
        return x.sum().item() === 2 ? problem('watched')() : undefined;
      };
      watchDevice('test', check);
      watchDevice('test', check);
      expect(asked).toBe(0);
      expect(() => x.toArray()).toThrow('watched');
      expect(asked).toBe(1);
      expect(x.toArray()).toEqual([1, 1]);
      watchDevice('test', () => undefined);
      expect(x.toArray()).toEqual([1, 1]);
      process.env['FMOE_CHECK'] = '1';
      expect(() => watchDevice('test', check)).toThrow('watched');
    });
  });

  it('come at once with FMOE_CHECK=1', () => {
    process.env['FMOE_CHECK'] = '1';
    torch.tidy(() => {
      const bad = torch.ones([1], { dtype: 'bool', device });
      expect(() => flagOnDevice('test', bad, problem('at once'))).toThrow('at once');
    });
  });
});

function cleanUp(): void {
  delete process.env['FMOE_CHECK'];
  try {
    raiseDeviceErrors();
  } catch {
    // What a failed test left must not fail the next one.
  }
}
