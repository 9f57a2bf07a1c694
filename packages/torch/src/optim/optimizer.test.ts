import { describe, expect, it } from 'vitest';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, expectIdentical } from '../testing/index.js';

const { optim } = torch;

/** Steps with the gradients of sum(w * w * factor). */
function quadraticStep(optimizer: torch.optim.Optimizer, params: torch.Tensor[], factor = 1): void {
  torch.tidy(() => {
    optimizer.zeroGrad();
    const terms = params.map((param) => param.mul(param).mul(factor).to('float32').sum());
    terms.reduce((a, b) => a.add(b)).backward();
    optimizer.step();
  });
}

interface SignOptions extends torch.optim.OptimizerOptions {
  scale: number;
}

/** Sign descent, written with single operators outside of the package's own optimizers. */
class SignDescent extends optim.Optimizer<SignOptions> {
  constructor(params: torch.Tensor[], options: { lr: number; scale?: number }) {
    super(params, { lr: 0.1, scale: 1, masterWeights: false }, options);
  }
  protected override checkOptions(): void {}
  protected override stateKeys(): string[] {
    return ['previous'];
  }
  protected override createState(
    _key: string,
    { shape, dtype, device }: torch.optim.TensorSpec,
  ): torch.Tensor {
    return torch.zeros(shape, { dtype, device });
  }
  protected override update(lists: torch.optim.UpdateLists, options: SignOptions): void {
    const { targets, grads, state } = lists.tensors();
    targets.forEach((target, i) => {
      target.sub_(grads[i]!.sign(), { alpha: options.lr * options.scale });
      state['previous']![i]!.copy_(grads[i]!);
    });
  }
}

describeEachDevice('optimizers', (device) => {
  it('find the minimum of a quadratic', () => {
    torch.tidy(() => {
      const target = torch.tensor([3, -2, 0.5], { device });
      for (const [name, options] of [
        ['SGD', { lr: 0.1, momentum: 0.5 }],
        ['Adam', { lr: 0.2 }],
        ['AdamW', { lr: 0.2, weightDecay: 0 }],
        ['Adagrad', { lr: 1 }],
      ] as const) {
        const w = torch.zeros([3], { device, requiresGrad: true });
        const optimizer = new optim[name]([w], options);
        for (let i = 0; i < 300; i++) {
          torch.tidy(() => {
            optimizer.zeroGrad();
            const error = w.sub(target);
            error.mul(error).sum().backward();
            optimizer.step();
          });
        }
        expectAllClose(w, target, { atol: 1e-3 });
        optimizer.dispose();
      }
    });
  });

  it('leave the number of tensors unchanged from step to step', () => {
    torch.tidy(() => {
      const params = [torch.ones([3, 2], { device }), torch.ones([2], { device, dtype: 'float64' })];
      for (const param of params) param.requiresGrad_();
      const optimizers = [
        new optim.Adam(params, { amsgrad: true }),
        new optim.AdamW(params),
        new optim.SGD(params, { momentum: 0.9 }),
        new optim.Adagrad(params),
      ];
      for (const optimizer of optimizers) {
        quadraticStep(optimizer, params);
        const before = torch.memory().tensors;
        for (let i = 0; i < 10; i++) quadraticStep(optimizer, params);
        optimizer.zeroGrad({ setToNone: false });
        expect(torch.memory().tensors).toBe(before);
        optimizer.dispose();
      }
    });
  });

  it('keep their state out of scopes', () => {
    torch.tidy(() => {
      const w = torch.ones([2], { device, requiresGrad: true });
      const optimizer = new optim.Adam([w]);
      torch.tidy(() => quadraticStep(optimizer, [w]));
      expect(Object.values(optimizer.state.get(w)!).every((tensor) => !tensor.isDisposed)).toBe(true);
      optimizer.dispose();
      expect(optimizer.state.size).toBe(0);
    });
  });

  it('add up the gradients of micro-batches', () => {
    torch.tidy(() => {
      const x = torch.randn([8, 3], { device, dtype: 'float64' });
      const weights = [0, 1].map(() => torch.ones([3], { device, dtype: 'float64', requiresGrad: true }));
      const [whole, parts] = weights.map((w) => new optim.Adam([w], { lr: 0.1 }));
      for (let step = 0; step < 3; step++) {
        whole!.zeroGrad();
        x.matmul(weights[0]!).tanh().mean().backward();
        whole!.step();
        parts!.zeroGrad();
        for (const chunk of x.chunk(4)) chunk.matmul(weights[1]!).tanh().mean().div(4).backward();
        parts!.step();
      }
      expectAllClose(weights[1]!, weights[0]!, { rtol: 1e-12 });
      whole!.dispose();
      parts!.dispose();
    });
  });

  it('run a closure with gradients on, and return its loss', () => {
    torch.tidy(() => {
      const w = torch.tensor([2], { device, requiresGrad: true });
      const optimizer = new optim.SGD([w], { lr: 0.25 });
      const loss = torch.noGrad(() =>
        optimizer.step(() => {
          optimizer.zeroGrad();
          const value = w.mul(w).sum();
          value.backward();
          return value;
        }),
      );
      expect(loss.item()).toBe(4);
      expectAllClose(w, [1]);
      expect(optimizer.step()).toBeUndefined();
    });
  });

  it('drop gradients or fill them with zeros', () => {
    torch.tidy(() => {
      const [a, b] = [torch.ones([2], { device }), torch.ones([2], { device })].map((x) => x.requiresGrad_());
      const optimizer = new optim.SGD([a!, b!], { lr: 1 });
      a!.sum().backward();
      const grad = a!.grad!;
      optimizer.zeroGrad({ setToNone: false });
      expectAllClose(grad, [0, 0]);
      expect(b!.grad).toBeNull();
      optimizer.zeroGrad();
      expect(a!.grad).toBeNull();
      optimizer.step();
      expectAllClose(a!, [1, 1]);
    });
  });

  it('take new groups and changed rates while training', () => {
    torch.tidy(() => {
      const [a, b] = [torch.ones([1], { device }), torch.ones([1], { device })].map((x) => x.requiresGrad_());
      const optimizer = new optim.SGD([a!], { lr: 0.25 });
      quadraticStep(optimizer, [a!, b!]);
      expectAllClose(b!, [1]);
      optimizer.addParamGroup({ params: b!, lr: 0.5 });
      optimizer.paramGroups[0]!.lr = 0;
      quadraticStep(optimizer, [a!, b!]);
      expectAllClose(a!, [0.5]);
      expectAllClose(b!, [0]);
    });
  });

  it('update parameters that are not contiguous, and take gradients that are not', () => {
    torch.tidy(() => {
      const base = torch.arange(24, { device, dtype: 'float64' }).reshape([4, 6]);
      const grad = torch.randn([4, 3], { device, dtype: 'float64' });
      const strided = base
        .at('...', torch.slice(0, 6, 2))
        .detach()
        .requiresGrad_();
      const transposed = torch.ones([3, 4], { device, dtype: 'float64' }).t().detach().requiresGrad_();
      const plain = torch.ones([4, 3], { device, dtype: 'float64', requiresGrad: true });
      const references = [strided, transposed, plain].map((x) =>
        x.detach().clone().contiguous().requiresGrad_(),
      );
      const optimizer = new optim.Adam([strided, transposed, plain], { lr: 0.1, amsgrad: true });
      const reference = new optim.Adam(references, { lr: 0.1, amsgrad: true });
      for (let step = 0; step < 3; step++) {
        for (const param of [strided, transposed]) param.grad = grad;
        plain.grad = grad.t().contiguous().t();
        for (const param of references) param.grad = grad.clone();
        optimizer.step();
        reference.step();
      }
      [strided, transposed, plain].forEach((param, i) => {
        expectIdentical(param.contiguous(), references[i]!);
      });
      // The columns between must not have been touched.
      expectIdentical(
        base.at('...', torch.slice(1, 6, 2)).contiguous(),
        torch
          .arange(24, { device, dtype: 'float64' })
          .reshape([4, 6])
          .at('...', torch.slice(1, 6, 2))
          .contiguous(),
      );
      optimizer.dispose();
      reference.dispose();
    });
  });

  it('can be written outside of the package', () => {
    torch.tidy(() => {
      const w = torch.tensor([2, -2], { device, requiresGrad: true });
      const optimizer = new SignDescent([w], { lr: 0.5, scale: 2 });
      quadraticStep(optimizer, [w]);
      expectAllClose(w, [1, -1]);
      const state = optimizer.stateDict();
      expectAllClose(state.state['0']!['previous'] as torch.Tensor, [4, -4]);
      expect(state.param_groups[0]).toEqual({ lr: 0.5, scale: 2, params: [0] });
      optimizer.dispose();
    });
  });
});

describeEachDevice('master weights', (device) => {
  it.each(['bfloat16', 'float16'] as const)('keep updates that %s would lose', (dtype) => {
    torch.tidy(() => {
      const make = () => torch.full([3], 1, { dtype, device, requiresGrad: true });
      const [plain, mastered] = [make(), make()];
      const optimizers = [
        new optim.SGD([plain!], { lr: 1e-4 }),
        new optim.SGD([mastered!], { lr: 1e-4, masterWeights: true }),
      ];
      const grad = torch.ones([3], { dtype, device });
      for (let i = 0; i < 100; i++) {
        [plain!, mastered!].forEach((param, k) => {
          param.grad = grad;
          optimizers[k]!.step();
        });
      }
      expectAllClose(plain!, [1, 1, 1]);
      expectAllClose(mastered!, [0.99, 0.99, 0.99], { rtol: 4e-3 });
      const master = optimizers[1]!.state.get(mastered!)!['master_param']!;
      expect(master.dtype).toBe('float32');
      expectAllClose(master, [0.99, 0.99, 0.99], { rtol: 1e-5 });
      expectIdentical(mastered!, master.to(dtype));
      for (const optimizer of optimizers) optimizer.dispose();
    });
  });

  it('equal float32 training on the same gradients, rounded', () => {
    torch.tidy(() => {
      const start = torch.randn([4, 3], { device }).to('bfloat16');
      const half = start.clone().requiresGrad_();
      const full = start.to('float32').requiresGrad_();
      const other = torch.ones([2], { device, requiresGrad: true });
      const options = { lr: 0.01, weightDecay: 0.1 };
      const mixed = new optim.AdamW([half, other], { ...options, masterWeights: true });
      const reference = new optim.AdamW([full], options);
      for (let i = 0; i < 5; i++) {
        const grad = torch.randn([4, 3], { device }).to('bfloat16');
        half.grad = grad;
        other.grad = torch.ones([2], { device });
        full.grad = grad.to('float32');
        mixed.step();
        reference.step();
      }
      expectIdentical(mixed.state.get(half)!['master_param']!, full.detach());
      expectIdentical(half.detach(), full.to('bfloat16').detach());
      expect(mixed.state.get(half)!['exp_avg']!.dtype).toBe('float32');
      expect(mixed.state.get(other)!['master_param']).toBeUndefined();
      mixed.dispose();
      reference.dispose();
    });
  });

  it('are saved, loaded and read again from parameters', () => {
    torch.tidy(() => {
      const make = (): torch.Tensor => torch.ones([2], { dtype: 'bfloat16', device, requiresGrad: true });
      const [a, b] = [make(), make()];
      const first = new optim.Adam([a], { lr: 1e-3, masterWeights: true });
      quadraticStep(first, [a]);
      expect(first.stateDict().param_groups[0]!['master_weights']).toBe(true);
      const second = new optim.Adam([b], { masterWeights: true });
      second.loadStateDict(first.stateDict());
      torch.noGrad(() => b.copy_(a));
      quadraticStep(first, [a]);
      quadraticStep(second, [b]);
      expectIdentical(second.state.get(b)!['master_param']!, first.state.get(a)!['master_param']!);
      torch.noGrad(() => b.fill_(5));
      second.refreshMasterWeights();
      const master = second.state.get(b)!['master_param']!;
      expectAllClose(master, [5, 5]);
      expect(master.requiresGrad).toBe(false);
      first.dispose();
      second.dispose();
    });
  });
});

describe('optimizer state', () => {
  it('names parameters where they came with names', () => {
    torch.tidy(() => {
      const w = torch.ones([2], { requiresGrad: true });
      const optimizer = new optim.SGD([['layer.weight', w]], { lr: 1 });
      expect(optimizer.stateDict().param_groups[0]!['param_names']).toEqual(['layer.weight']);
      expect(optimizer.paramGroups[0]!.params[0]).toBe(w);
      const model = new torch.nn.Linear(2, 1);
      const named = new optim.SGD(model.namedParameters(), { lr: 1 });
      expect(named.paramGroups[0]!.paramNames).toEqual(['weight', 'bias']);
      expect(new optim.SGD(model.parameters()).paramGroups[0]!.params).toHaveLength(2);
      model.dispose();
    });
  });

  it('loads its own state, and forgets state that the loaded one lacks', () => {
    torch.tidy(() => {
      const [a, b] = [torch.ones([2], { requiresGrad: true }), torch.ones([3], { requiresGrad: true })];
      const optimizer = new optim.Adam([a, b]);
      quadraticStep(optimizer, [a]);
      const early = optimizer.stateDict();
      const kept = torch.memory().tensors;
      const average = early.state['0']!['exp_avg'] as torch.Tensor;
      const before = average.toArray();
      optimizer.loadStateDict(early);
      expect(average.toArray()).toEqual(before);
      quadraticStep(optimizer, [a, b]);
      expect(optimizer.state.size).toBe(2);
      optimizer.loadStateDict({ ...early, state: { 0: optimizer.stateDict().state['0']! } });
      expect([...optimizer.state.keys()]).toEqual([a]);
      optimizer.zeroGrad();
      expect(torch.memory().tensors).toBe(kept);
      optimizer.dispose();
    });
  });

  it('takes a step as a number and options of older states', () => {
    torch.tidy(() => {
      const w = torch.ones([2], { requiresGrad: true });
      const optimizer = new optim.Adam([w], { eps: 0.5 });
      const zeros = (): torch.Tensor => torch.zeros([2], { dtype: 'float64' });
      optimizer.loadStateDict({
        state: { 0: { step: 7, exp_avg: zeros(), exp_avg_sq: zeros() } },
        param_groups: [{ lr: 0.125, betas: [0.5, 0.75], params: [0] }],
      });
      expect(optimizer.state.get(w)!['step']!.item()).toBe(7);
      expect(optimizer.state.get(w)!['exp_avg']!.dtype).toBe('float32');
      expect(optimizer.paramGroups[0]).toMatchObject({ lr: 0.125, betas: [0.5, 0.75], eps: 0.5 });
      optimizer.dispose();
    });
  });
});
