import { describe, expect, it } from 'vitest';
import * as torch from '../index.js';
import { expectAllClose } from '../testing/index.js';
import {
  Identity,
  Linear,
  type Module,
  ModuleDict,
  ModuleList,
  Parameter,
  ParameterList,
  ReLU,
  Sequential,
  Sigmoid,
  Tanh,
} from './index.js';

const codeOf = (code: string) => expect.objectContaining({ code });
const keys = (module: Module) => [...module.namedChildren()].map(([name]) => name);
const kinds = (modules: Iterable<Module>) => [...modules].map((module) => module.constructor.name);

describe('Sequential', () => {
  it('feeds each module the output of the one before', () => {
    torch.tidy(() => {
      const model = new Sequential(new Linear(2, 2), new ReLU());
      model.loadStateDict({
        '0.weight': torch.tensor([
          [1, 0],
          [0, -1],
        ]),
        '0.bias': torch.tensor([0.5, 0.5]),
      });
      expectAllClose(model.call(torch.tensor([[1, 2]])), [[1.5, 0]]);
      model.dispose();
    });
  });

  it('takes names, which become the keys', () => {
    torch.tidy(() => {
      const model = new Sequential({ up: new Linear(2, 3), act: new ReLU() });
      expect(Object.keys(model.stateDict())).toEqual(['up.weight', 'up.bias']);
      expect(kinds(model)).toEqual(['Linear', 'ReLU']);
      model.dispose();
    });
  });

  it('refuses names that cannot be keys and items that are no modules', () => {
    for (const name of ['', 'a.b', '3', 'forward', 'training']) {
      expect(() => new Sequential({ [name]: new ReLU() })).toThrowError(codeOf('ERR_ARGUMENT'));
    }
    expect(() => new Sequential(new ReLU(), 3 as unknown as Module)).toThrowError(codeOf('ERR_ARGUMENT'));
  });

  it('is the identity when empty', () => {
    torch.tidy(() => {
      const x = torch.ones([1]);
      expect(new Sequential().call(x)).toBe(x);
    });
  });

  it('runs the hooks of its modules', () => {
    torch.tidy(() => {
      const model = new Sequential(new Identity(), new Identity());
      let calls = 0;
      for (const module of model) module.registerForwardHook(() => void calls++);
      model.call(torch.ones([1]));
      expect(calls).toBe(2);
    });
  });
});

describe('ModuleList', () => {
  it('appends, inserts, replaces and removes, and keeps keys 0, 1, ...', () => {
    const list = new ModuleList<Module>([new ReLU(), new Tanh()]);
    list.append(new Sigmoid()).insert(0, new Identity());
    expect(kinds(list)).toEqual(['Identity', 'ReLU', 'Tanh', 'Sigmoid']);
    expect(keys(list)).toEqual(['0', '1', '2', '3']);
    expect(list.pop(1)).toBeInstanceOf(ReLU);
    list.set(-1, new ReLU());
    expect(kinds(list)).toEqual(['Identity', 'Tanh', 'ReLU']);
    expect(keys(list)).toEqual(['0', '1', '2']);
    expect(list.length).toBe(3);
    expect(list[1]).toBe(list.at(1));
    expect(list.at(-1)).toBeInstanceOf(ReLU);
  });

  it('orders more than ten items by number', () => {
    const list = new ModuleList(Array.from({ length: 12 }, () => new Linear(1, 1)));
    expect([...list.namedParameters()].map(([name]) => name).slice(-4)).toEqual([
      '10.weight',
      '10.bias',
      '11.weight',
      '11.bias',
    ]);
    list.dispose();
  });

  it('refuses bad items, bad indices and being called', () => {
    const list = new ModuleList<Module>([new ReLU()]);
    expect(() => list.at(1)).toThrowError(codeOf('ERR_INDEX'));
    expect(() => list.at(-2)).toThrowError(codeOf('ERR_INDEX'));
    expect(() => list.insert(5, new ReLU())).toThrowError(codeOf('ERR_INDEX'));
    expect(() => list.append('x' as unknown as Module)).toThrowError(codeOf('ERR_ARGUMENT'));
    expect(() => list.call()).toThrowError(codeOf('ERR_NOT_IMPLEMENTED'));
    expect(kinds(list)).toEqual(['ReLU']);
  });
});

describe('ModuleDict', () => {
  it('keeps the order of insertion, also of numbers', () => {
    const dict = new ModuleDict<Module>([
      ['b', new ReLU()],
      ['10', new Tanh()],
    ]);
    dict.set('2', new Sigmoid()).set('b', new Identity());
    expect(keys(dict)).toEqual(['b', '10', '2']);
    expect(kinds(dict.values())).toEqual(['Identity', 'Tanh', 'Sigmoid']);
    expect(dict.has('10')).toBe(true);
    expect(dict.delete('10')).toBe(true);
    expect([...dict.keys()]).toEqual(['b', '2']);
    expect(dict.size).toBe(2);
  });

  it('refuses unknown names, bad names and bad items', () => {
    const dict = new ModuleDict<Module>({ a: new ReLU() });
    expect(() => dict.get('b')).toThrowError(codeOf('ERR_INDEX'));
    expect(() => dict.set('a.b', new ReLU())).toThrowError(codeOf('ERR_ARGUMENT'));
    expect(() => dict.set('c', {} as Module)).toThrowError(codeOf('ERR_ARGUMENT'));
    // Names of methods are fine here: the modules are no properties.
    expect(dict.set('forward', new Tanh()).get('forward')).toBeInstanceOf(Tanh);
  });
});

describe('Parameter and ParameterList', () => {
  it('makes a leaf that shares memory and survives the scope and the tensor it came from', () => {
    const parameter = torch.tidy(() => {
      const data = torch.tensor([1, 2]);
      const made = new Parameter(data.mul(2));
      expect(made).toBeInstanceOf(torch.Tensor);
      expect(made.isLeaf && made.requiresGrad).toBe(true);
      const frozen = new Parameter(data, false);
      data.fill_(9);
      expect(frozen.toArray()).toEqual([9, 9]);
      expect(frozen.requiresGrad).toBe(false);
      frozen.dispose();
      return { made };
    }).made;
    expect(parameter.detach().toArray()).toEqual([2, 4]);
    parameter.dispose();
  });

  it('lists parameters under their numbers', () => {
    torch.tidy(() => {
      const list = new ParameterList([torch.zeros([2])]).append(new Parameter(torch.ones([3])));
      expect([...list.namedParameters()].map(([name]) => name)).toEqual(['0', '1']);
      expect(list.length).toBe(2);
      expect(list.at(-1)).toBe(list[1]);
      expect(() => list.at(2)).toThrowError(codeOf('ERR_INDEX'));
      expect(() => list.append([] as unknown as torch.Tensor)).toThrowError(codeOf('ERR_ARGUMENT'));
      list.dispose();
    });
  });
});
