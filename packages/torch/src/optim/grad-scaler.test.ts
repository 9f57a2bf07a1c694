import { describe, expect, it } from 'vitest';
import { makeOptimizer, type OptimizerCase, readCases } from '../../test/optim-fixtures.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, type NestedNumbers } from '../testing/index.js';

const { GradScaler } = torch.optim;

interface ScalerCase {
  title: string;
  optimizer: OptimizerCase['optimizer'];
  options: Record<string, unknown>;
  unscale: boolean;
  params: NestedNumbers[];
  /** Factors of the parameters in the loss, flat; infinities and NaN as text. */
  factors: (number | 'inf' | 'nan')[][][];
  shapes: number[][];
  scales: number[];
  trackers: number[];
  paramsAfter: NestedNumbers[][];
  state: torch.optim.GradScalerState;
  steps: number[];
}

const cases = readCases<ScalerCase>('optim-scaler.json');
const options = { initScale: 1024, growthInterval: 2, growthFactor: 4, backoffFactor: 0.25 };
const toNumber = (value: number | 'inf' | 'nan'): number =>
  value === 'inf' ? Number.POSITIVE_INFINITY : value === 'nan' ? Number.NaN : value;

/** SGD as somebody outside of the package would write it, with single operators and no knowledge of scaling. */
class PlainSGD extends torch.optim.Optimizer {
  constructor(params: torch.Tensor[], lr: number) {
    super(params, { lr: 0, masterWeights: false }, { lr });
  }
  protected override checkOptions(): void {}
  protected override stateKeys(): string[] {
    return ['average'];
  }
  protected override createState(
    _key: string,
    { shape, dtype, device }: torch.optim.TensorSpec,
  ): torch.Tensor {
    return torch.zeros(shape, { dtype, device });
  }
  protected override update(lists: torch.optim.UpdateLists, { lr }: torch.optim.OptimizerOptions): void {
    const { targets, grads, state } = lists.tensors();
    targets.forEach((target, i) => {
      state['average']![i]!.mul_(0.9).add_(grads[i]!);
      target.add_(state['average']![i]!, { alpha: -lr });
    });
  }
}

describeEachDevice('GradScaler', (device) => {
  it.each(cases)('equals PyTorch: $title', (fixture) => {
    torch.tidy(() => {
      const params = fixture.params.map((values) => torch.tensor(values, { device, requiresGrad: true }));
      const optimizer = makeOptimizer(fixture.optimizer, params, fixture.options);
      const scaler = new GradScaler(options);
      fixture.factors.forEach((row, i) => {
        torch.tidy(() => {
          optimizer.zeroGrad();
          const terms = row.map((values, p) =>
            params[p]!.mul(torch.tensor(values.map(toNumber), { device }).reshape(fixture.shapes[p]!)).sum(),
          );
          scaler.scale(terms.reduce((a, b) => a.add(b))).backward();
          if (fixture.unscale) scaler.unscale_(optimizer);
          scaler.step(optimizer);
          scaler.update();
        });
        expect(scaler.getScale()).toBe(fixture.scales[i]);
        expect(scaler.stateDict()._growth_tracker).toBe(fixture.trackers[i]);
        params.forEach((param, p) => {
          expectAllClose(param, fixture.paramsAfter[i]![p]!, { rtol: 2e-6, atol: 1e-6 });
        });
      });
      expect(scaler.stateDict()).toEqual(fixture.state);
      const steps = [...optimizer.state.values()].flatMap(({ step }) => step?.item() ?? []);
      expect(steps).toEqual(fixture.steps);
      scaler.dispose();
      optimizer.dispose();
    });
  });

  it('steps an optimizer that knows nothing of scaling', () => {
    torch.tidy(() => {
      const w = torch.tensor([1, 2], { device, requiresGrad: true });
      const optimizer = new PlainSGD([w], 0.5);
      const scaler = new GradScaler(options);
      for (const factor of [2, Number.POSITIVE_INFINITY, 2]) {
        torch.tidy(() => {
          optimizer.zeroGrad();
          scaler.scale(w.mul(factor).sum()).backward();
          scaler.step(optimizer);
          scaler.update();
        });
      }
      // Two good steps: averages 2 and 0.9 * 2 + 2.
      expectAllClose(w, [1 - 0.5 * (2 + 3.8), 2 - 0.5 * (2 + 3.8)]);
      expect(scaler.getScale()).toBe(256);
      scaler.dispose();
      optimizer.dispose();
    });
  });

  it('keeps float16 gradients that would vanish unscaled, with float32 masters', () => {
    torch.tidy(() => {
      const w = torch.tensor([1], { dtype: 'float16', device, requiresGrad: true });
      const optimizer = new torch.optim.SGD([w], { lr: 1000, masterWeights: true });
      const scaler = new GradScaler({ initScale: 2 ** 16 });
      // The gradient is 2^-26, which float16 rounds to zero; scaled it is 2^-10.
      scaler
        .scale(
          w
            .to('float32')
            .mul(2 ** -26)
            .sum(),
        )
        .backward();
      expect(w.grad!.item()).toBe(2 ** -10);
      scaler.step(optimizer);
      scaler.update();
      const master = optimizer.state.get(w)!['master_param']!;
      expect(master.item()).toBeCloseTo(1 - 1000 * 2 ** -26, 7);
      scaler.dispose();
      optimizer.dispose();
    });
  });

  it('saves and resumes, before and after the first use', () => {
    torch.tidy(() => {
      const state = {
        scale: 32,
        growth_factor: 3,
        backoff_factor: 0.5,
        growth_interval: 7,
        _growth_tracker: 4,
      };
      const fresh = new GradScaler();
      fresh.loadStateDict(state);
      expect(fresh.stateDict()).toEqual(state);
      expect(fresh.scale(torch.ones([], { device })).item()).toBe(32);
      expect(fresh.stateDict()).toEqual(state);
      const used = new GradScaler();
      expect(used.scale(torch.ones([], { device })).item()).toBe(65536);
      used.loadStateDict(state);
      expect(used.scale([torch.ones([], { device })])[0]!.item()).toBe(32);
      expect(used.stateDict()).toEqual(state);
      fresh.dispose();
      used.dispose();
    });
  });

  it('sets a scale by hand', () => {
    torch.tidy(() => {
      const scaler = new GradScaler();
      scaler.scale(torch.ones([], { device })).dispose();
      scaler.update(8);
      expect(scaler.getScale()).toBe(8);
      scaler.dispose();
    });
  });

  it('leaves nothing behind', () => {
    torch.tidy(() => {
      const w = torch.ones([3], { device, requiresGrad: true });
      const optimizer = new torch.optim.Adam([w]);
      const scaler = new GradScaler();
      const step = () =>
        torch.tidy(() => {
          optimizer.zeroGrad();
          scaler.scale(w.mul(w).sum()).backward();
          scaler.unscale_(optimizer);
          scaler.step(optimizer);
          scaler.update();
        });
      step();
      const before = torch.memory().tensors;
      for (let i = 0; i < 10; i++) step();
      expect(torch.memory().tensors).toBe(before);
      scaler.dispose();
      optimizer.dispose();
    });
  });
});

describe('a disabled GradScaler', () => {
  it('passes everything on', () => {
    torch.tidy(() => {
      const w = torch.ones([2], { requiresGrad: true });
      const optimizer = new torch.optim.SGD([w], { lr: 1 });
      const scaler = new GradScaler({ enabled: false });
      const loss = w.sum();
      expect(scaler.scale(loss)).toBe(loss);
      loss.backward();
      scaler.unscale_(optimizer);
      scaler.step(optimizer);
      scaler.update();
      expectAllClose(w, [0, 0]);
      expect(scaler.getScale()).toBe(1);
      expect(scaler.stateDict()).toEqual({});
      scaler.loadStateDict({});
    });
  });
});
