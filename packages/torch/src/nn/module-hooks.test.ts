import { describe, expect, it } from 'vitest';
import * as torch from '../index.js';
import { expectAllClose } from '../testing/index.js';
import { Identity, Module } from './index.js';

class Add extends Module {
  override forward(a: torch.Tensor, b: torch.Tensor): torch.Tensor {
    return a.add(b);
  }
}

const one = () => torch.ones([1]);

describe('forward hooks', () => {
  it('see the module, the arguments and the output, in order of registration', () => {
    torch.tidy(() => {
      const module = new Add();
      const seen: string[] = [];
      module.registerForwardPreHook((self, args) => {
        expect(self).toBe(module);
        seen.push(`before ${args.length}`);
      });
      module.registerForwardHook((_self, args, output) => {
        seen.push(`after ${args.length} ${(output as torch.Tensor).item()}`);
      });
      module.registerForwardHook(() => {
        seen.push('last');
      });
      expect(module.call(one(), one()).item()).toBe(2);
      expect(seen).toEqual(['before 2', 'after 2 2', 'last']);
    });
  });

  it('are known to the module while they are registered', () => {
    const module = new Add();
    expect(module.hasForwardHooks).toBe(false);
    const handles = [module.registerForwardPreHook(() => {}), module.registerForwardHook(() => {})];
    for (const handle of handles) {
      expect(module.hasForwardHooks).toBe(true);
      handle.remove();
    }
    expect(module.hasForwardHooks).toBe(false);
  });

  it('do not run when forward is called directly', () => {
    torch.tidy(() => {
      const module = new Add();
      module.registerForwardHook(() => {
        throw new Error('must not run');
      });
      expect(module.forward(one(), one()).item()).toBe(2);
      expect(() => module.call(one(), one())).toThrow('must not run');
    });
  });

  it('replace arguments, by a list or by a single value', () => {
    torch.tidy(() => {
      const add = new Add();
      add.registerForwardPreHook((_, [a, b]) => [(a as torch.Tensor).mul(10), b]);
      expect(add.call(one(), one()).item()).toBe(11);
      const identity = new Identity();
      identity.registerForwardPreHook(() => torch.tensor([7]));
      expect(identity.call(one()).item()).toBe(7);
    });
  });

  it('replace the output, each seeing what the one before made', () => {
    torch.tidy(() => {
      const module = new Add();
      module.registerForwardHook((_module, _args, output) => (output as torch.Tensor).mul(3));
      module.registerForwardHook((_module, _args, output) => (output as torch.Tensor).add(0.5));
      expectAllClose(module.call(one(), one()), [6.5]);
    });
  });

  it('go when removed, even one of two registrations of the same function', () => {
    torch.tidy(() => {
      const module = new Add();
      let calls = 0;
      const hook = () => void calls++;
      const first = module.registerForwardHook(hook);
      const second = module.registerForwardHook(hook);
      module.call(one(), one());
      expect(calls).toBe(2);
      first.remove();
      first.remove();
      module.call(one(), one());
      expect(calls).toBe(3);
      second.remove();
      module.call(one(), one());
      expect(calls).toBe(3);
    });
  });

  it('may remove itself while running', () => {
    torch.tidy(() => {
      const module = new Add();
      let calls = 0;
      const handle = module.registerForwardPreHook(() => {
        calls++;
        handle.remove();
      });
      module.call(one(), one());
      module.call(one(), one());
      expect(calls).toBe(1);
    });
  });
});
