import { describe, expect, it } from 'vitest';
import { Block, Tied } from '../../test/support/composed-models.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, expectIdentical } from '../testing/index.js';
import { Dropout, Linear, Module, Parameter, ReLU, Sequential } from './index.js';

class Scale extends Module {
  readonly factor: Parameter;
  declare readonly calls: torch.Tensor;

  constructor(device: string) {
    super();
    this.factor = torch.tidy(() => new Parameter(torch.full([3], 2, { device })));
    this.registerBuffer('calls', torch.zeros([], { device, dtype: 'int64' }));
  }

  override forward(x: torch.Tensor): torch.Tensor {
    return x.mul(this.factor);
  }
}

describeEachDevice('Module', (device) => {
  it('finds parameters, buffers and children among its properties', () => {
    torch.tidy(() => {
      const model = new Sequential(new Scale(device), new ReLU(), new Scale(device));
      expect([...model.namedParameters()].map(([name]) => name)).toEqual(['0.factor', '2.factor']);
      expect([...model.namedBuffers()].map(([name]) => name)).toEqual(['0.calls', '2.calls']);
      expect(model.children().map((child) => child.constructor.name)).toEqual(['Scale', 'ReLU', 'Scale']);
      expect(model.modules()).toHaveLength(4);
      model.dispose();
    });
  });

  it('keeps parameters and buffers alive when the scope they were born in closes', () => {
    const module = torch.tidy(() => {
      const scale = new Scale(device);
      torch.tidy(() => scale.setBuffer('calls', torch.ones([], { device, dtype: 'int64' })));
      // A module is no tensor and is returned as it is: what it owns must have left the scope by itself.
      return scale;
    });
    expect(module.factor.isDisposed).toBe(false);
    expect(module.calls.item()).toBe(1);
    module.dispose();
    expect(module.factor.isDisposed).toBe(true);
    expect(module.calls.isDisposed).toBe(true);
  });

  it('frees the previous tensor of a buffer', () => {
    torch.tidy(() => {
      const scale = new Scale(device);
      const before = torch.memory().tensors;
      for (let i = 0; i < 5; i++) {
        torch.tidy(() => scale.setBuffer('calls', scale.calls.add(1)));
      }
      expect(scale.calls.item()).toBe(5);
      expect(torch.memory().tensors).toBe(before);
      scale.setBuffer('calls', null);
      expect(scale.buffers()).toEqual([]);
      expect(scale.stateDict()).not.toHaveProperty('calls');
      scale.dispose();
    });
  });

  it('switches the mode of everything below it', () => {
    const model = new Sequential(new Dropout(0.5), new Sequential(new Dropout(0.5)));
    expect(model.modules().every(({ training }) => training)).toBe(true);
    expect(model.eval()).toBe(model);
    expect(model.modules().some(({ training }) => training)).toBe(false);
    model.train();
    expect(model.modules().every(({ training }) => training)).toBe(true);
    torch.tidy(() => {
      const x = torch.ones([1000], { device });
      expect(model.call(x).eq(0).any().item()).toBe(1);
      expect(model.eval().call(x).eq(1).all().item()).toBe(1);
    });
  });

  it('clears gradients', () => {
    torch.tidy(() => {
      const scale = new Scale(device);
      scale
        .call(torch.ones([3], { device }))
        .sum()
        .backward();
      expectAllClose(scale.factor.grad as torch.Tensor, [1, 1, 1]);
      scale.zeroGrad({ setToNull: false });
      expectAllClose(scale.factor.grad as torch.Tensor, [0, 0, 0]);
      scale.zeroGrad();
      expect(scale.factor.grad).toBeNull();
      scale.dispose();
    });
  });

  it('freezes and thaws parameters', () => {
    torch.tidy(() => {
      const scale = new Scale(device).requiresGrad_(false);
      expect(scale.factor.requiresGrad).toBe(false);
      expect(scale.call(torch.ones([3], { device })).requiresGrad).toBe(false);
      scale.requiresGrad_();
      expect(scale.factor.requiresGrad).toBe(true);
      scale.dispose();
    });
  });

  it('takes ten training steps without leaving a tensor behind', () => {
    torch.tidy(() => {
      const model = new Sequential(new Linear(4, 8, { device }), new ReLU(), new Linear(8, 2, { device }));
      const x = torch.randn([5, 4], { device });
      const step = () =>
        torch.tidy(() => {
          model.zeroGrad();
          model.call(x).square().mean().backward();
          torch.noGrad(() => {
            for (const parameter of model.parameters()) {
              parameter.sub_((parameter.grad as torch.Tensor).mul(0.1));
            }
          });
        });
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) step();
      expect(torch.memory().tensors).toBe(before);
      model.dispose();
    });
  });
});

describeEachDevice('Module.to', (device) => {
  it('changes the dtype of parameters, gradients and floating-point buffers, in the same objects', () => {
    torch.tidy(() => {
      const scale = new Scale(device);
      const { factor, calls } = scale;
      scale.registerBuffer('mean', torch.ones([3], { device }));
      scale
        .call(torch.ones([3], { device }))
        .sum()
        .backward();
      for (const target of ['float64', { dtype: 'float64' as const }]) {
        expect(scale.to(target)).toBe(scale);
        expect(scale.factor).toBe(factor);
        expect([factor.dtype, factor.grad?.dtype, calls.dtype]).toEqual(['float64', 'float64', 'int64']);
        expect(scale.buffers().map((buffer) => buffer.dtype)).toEqual(['int64', 'float64']);
      }
      expectAllClose(factor, [2, 2, 2]);
      expect(factor.isLeaf && factor.requiresGrad).toBe(true);
      // Gradients go on adding up in the new dtype.
      scale
        .call(torch.ones([3], { device, dtype: 'float64' }))
        .sum()
        .backward();
      expectAllClose(factor.grad as torch.Tensor, [2, 2, 2]);
      scale.dispose();
    });
  });

  it('moves to a device and back, and leaves no tensors behind', () => {
    torch.tidy(() => {
      torch.manualSeed(0);
      const model = new Linear(3, 2);
      const original = model.weight.detach().clone();
      const before = torch.memory().tensors;
      model.to(device);
      expect(model.weight.device.startsWith(device)).toBe(true);
      torch.tidy(() => {
        model
          .call(torch.ones([1, 3], { device }))
          .sum()
          .backward();
        expect(model.bias?.grad?.device.startsWith(device)).toBe(true);
      });
      model.to({ device: 'cpu', dtype: 'float64' });
      expect(torch.memory().tensors).toBe(before);
      torch.tidy(() => {
        expect([model.weight.device, model.weight.grad?.device]).toEqual(['cpu', 'cpu']);
        expectIdentical(model.weight.detach(), original.double());
      });
      model.dispose();
    });
  });
});

describe('the tree of modules', () => {
  it('counts a shared module and a tied parameter once, but shows them under each name in the state', () => {
    torch.tidy(() => {
      const model = new Tied();
      expect(model.modules().filter((module) => module instanceof Block)).toHaveLength(2);
      expect(model.parameters().filter((parameter) => parameter === model.embed.weight)).toHaveLength(1);
      const state = model.stateDict();
      state['out.weight']?.fill_(5);
      expect(state['embed.weight']?.eq(5).all().item()).toBe(1);
      expect(Object.keys(state)).toEqual(
        expect.arrayContaining(['embed.weight', 'out.weight', 'shared.scale']),
      );
      model.dispose();
    });
  });

  it('applies a function to children before parents', () => {
    const model = new Sequential(new ReLU(), new Sequential(new Dropout()));
    const order: string[] = [];
    expect(model.apply((module) => order.push(module.constructor.name))).toBe(model);
    expect(order).toEqual(['ReLU', 'Dropout', 'Sequential', 'Sequential']);
  });

  it('refuses a state without an end', () => {
    const module = new Module() as Module & { inner?: Module };
    module.inner = module;
    expect(module.modules()).toEqual([module]);
    expect(() => module.stateDict()).toThrowError(expect.objectContaining({ code: 'ERR_STATE_DICT' }));
  });
});
