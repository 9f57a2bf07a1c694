import { describe, expect, it } from 'vitest';
import { camelOptions, readCases } from '../../test/optim-fixtures.js';
import * as torch from '../index.js';

const { optim } = torch;

type SimpleSpec = [name: string, options: Record<string, unknown>];
type Spec = SimpleSpec | [name: string, parts: SimpleSpec[], milestones?: number[]];

interface SchedulerCase {
  title: string;
  spec: Spec;
  metrics: number[] | null;
  lrs: number[][];
  state: torch.optim.SchedulerStateDict;
}

const cases = readCases<SchedulerCase>('optim-schedulers.json');
const baseLrs = [0.1, 0.02];

function makeOptimizer(): torch.optim.Optimizer {
  return new optim.SGD(
    baseLrs.map((lr) => ({ params: [torch.zeros([1], { requiresGrad: true })], lr })),
    { lr: 1 },
  );
}

type AnyScheduler = torch.optim.Scheduler & { step(metric?: number): void };

function makeSimple([name, options]: SimpleSpec, optimizer: torch.optim.Optimizer): torch.optim.LRScheduler {
  const classes = optim as unknown as Record<string, new (...args: unknown[]) => torch.optim.LRScheduler>;
  return new classes[name]!(optimizer, camelOptions(options));
}

function makeScheduler(spec: Spec, optimizer: torch.optim.Optimizer): AnyScheduler {
  const [name, options, milestones] = spec;
  if (!Array.isArray(options)) return makeSimple([name, options], optimizer);
  const parts = options.map((part) => makeSimple(part, optimizer));
  return milestones
    ? new optim.SequentialLR(optimizer, parts, milestones)
    : new optim.ChainedScheduler(parts);
}

const lrsOf = (optimizer: torch.optim.Optimizer): number[] => optimizer.paramGroups.map((group) => group.lr);

function expectLrs(actual: number[], expected: number[]): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((lr, i) => {
    expect(Math.abs(lr - expected[i]!)).toBeLessThanOrEqual(1e-12 * Math.abs(expected[i]!) + 1e-17);
  });
}

/** Numbers within rounding, everything else exactly; infinities are text in the fixture. */
function expectState(actual: unknown, expected: unknown, path = 'state'): void {
  if (typeof expected === 'number') {
    expect(typeof actual, path).toBe('number');
    expect(Math.abs((actual as number) - expected), path).toBeLessThanOrEqual(
      1e-12 * Math.abs(expected) + 1e-17,
    );
  } else if (expected === 'inf' || expected === '-inf') {
    expect(actual, path).toBe(expected === 'inf' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY);
  } else if (typeof expected === 'object' && expected !== null) {
    for (const [key, value] of Object.entries(expected)) {
      expectState((actual as Record<string, unknown>)[key], value, `${path}.${key}`);
    }
  } else expect(actual, path).toBe(expected);
}

describe('schedulers equal PyTorch', () => {
  it.each(cases)('$title', ({ spec, lrs, metrics, state }) => {
    torch.tidy(() => {
      const optimizer = makeOptimizer();
      const scheduler = makeScheduler(spec, optimizer);
      expectLrs(lrsOf(optimizer), lrs[0]!);
      for (let i = 1; i < lrs.length; i++) {
        scheduler.step(metrics?.[i - 1]);
        expectLrs(lrsOf(optimizer), lrs[i]!);
        expect(scheduler.getLastLr()).toEqual(lrsOf(optimizer));
      }
      // The lowest rate of a plateau that was not given per group is PyTorch's own bookkeeping, as is lr_lambdas.
      const { default_min_lr: _default, lr_lambdas: _lambdas, ...expected } = state;
      if (spec[0] !== 'SequentialLR' && spec[0] !== 'ChainedScheduler')
        expectState(scheduler.stateDict(), expected);
      else expectState(scheduler.stateDict()['_last_lr'], expected['_last_lr']);
    });
  });
});

describe('schedulers resume', () => {
  it.each(cases)('bit for bit: $title', ({ spec, lrs, metrics }) => {
    torch.tidy(() => {
      const steps = lrs.length - 1;
      const whole = makeOptimizer();
      const uninterrupted = makeScheduler(spec, whole);
      const first = makeOptimizer();
      const before = makeScheduler(spec, first);
      const half = Math.floor(steps / 2);
      for (let i = 0; i < half; i++) before.step(metrics?.[i]);
      const saved = JSON.parse(
        JSON.stringify({ scheduler: before.stateDict(), optimizer: first.stateDict().param_groups }),
      );
      const second = makeOptimizer();
      const after = makeScheduler(spec, second);
      second.loadStateDict({ state: {}, param_groups: saved.optimizer });
      after.loadStateDict(saved.scheduler);
      for (let i = 0; i < steps; i++) uninterrupted.step(metrics?.[i]);
      for (let i = half; i < steps; i++) after.step(metrics?.[i]);
      expect(lrsOf(second)).toEqual(lrsOf(whole));
      expect(after.stateDict()).toEqual(uninterrupted.stateDict());
    });
  });

  // In PyTorch the inverse square root is a lambda, which has no state of its own.
  const known = cases.filter(({ spec }) => !JSON.stringify(spec).includes('InverseSqrtLR'));
  it.each(known)("from PyTorch's own state: $title", ({ spec, lrs, state }) => {
    torch.tidy(() => {
      const optimizer = makeOptimizer();
      const scheduler = makeScheduler(spec, optimizer);
      const infinite = (_key: string, value: unknown) => (value === 'inf' || value === '-inf' ? null : value);
      scheduler.loadStateDict(JSON.parse(JSON.stringify(state), infinite));
      expectLrs(lrsOf(optimizer), lrs.at(-1)!);
    });
  });
});

describe('LambdaLR', () => {
  it('takes one function for each group', () => {
    torch.tidy(() => {
      const optimizer = makeOptimizer();
      const scheduler = new optim.LambdaLR(optimizer, [(epoch) => 1 / (1 + epoch), (epoch) => 2 ** epoch]);
      scheduler.step();
      expect(lrsOf(optimizer)).toEqual([0.05, 0.04]);
    });
  });
});

describe('withWarmup', () => {
  it('rises in equal steps to the full rate and then follows the schedule', () => {
    torch.tidy(() => {
      const optimizer = new optim.SGD([torch.zeros([1], { requiresGrad: true })], { lr: 1 });
      const scheduler = optim.withWarmup(optimizer, 4, (o) => new optim.CosineAnnealingLR(o, { tMax: 6 }));
      const rates = [optimizer.paramGroups[0]!.lr];
      for (let i = 0; i < 10; i++) {
        scheduler.step();
        rates.push(optimizer.paramGroups[0]!.lr);
      }
      const expected = [
        0.2,
        0.4,
        0.6,
        0.8,
        ...[0, 1, 2, 3, 4, 5, 6].map((t) => (1 + Math.cos((Math.PI * t) / 6)) / 2),
      ];
      rates.forEach((rate, i) => {
        expect(rate).toBeCloseTo(expected[i]!, 12);
      });
    });
  });
});

describe('ReduceLROnPlateau', () => {
  it('takes a tensor, and counts NaN as no improvement', () => {
    torch.tidy(() => {
      const optimizer = makeOptimizer();
      const scheduler = new optim.ReduceLROnPlateau(optimizer, { patience: 1, factor: 0.5 });
      for (const metric of [2, Number.NaN, Number.NaN]) scheduler.step(torch.tensor(metric));
      expect(lrsOf(optimizer)).toEqual([0.05, 0.01]);
    });
  });
});
