import { optim, Parameter, zeros } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import type { ResolvedConfig } from './config/index.js';
import { Schedule } from './schedule.js';

const steps = 40;
const lr = 2e-3;

function make(config: ResolvedConfig['training']['schedule']) {
  const optimizer = new optim.SGD([new Parameter(zeros([1]))], { lr });
  return { optimizer, schedule: new Schedule(optimizer, config, steps) };
}

function rates(config: ResolvedConfig['training']['schedule']): number[] {
  const { optimizer, schedule } = make(config);
  return Array.from({ length: steps }, () => {
    const rate = optimizer.paramGroups[0]!.lr;
    schedule.afterStep();
    return rate;
  });
}

describe('Schedule', () => {
  const warm = (step: number) => (lr * step) / 10;

  it.each<[string, ResolvedConfig['training']['schedule'], (step: number) => number]>([
    ['constant', { kind: 'constant', warmupSteps: 10 }, (step) => (step <= 10 ? warm(step) : lr)],
    [
      'cosine',
      { kind: 'cosine', warmupSteps: 10, etaMin: 1e-4 },
      (step) =>
        step <= 10 ? warm(step) : 1e-4 + ((lr - 1e-4) * (1 + Math.cos((Math.PI * (step - 1)) / steps))) / 2,
    ],
    [
      'inv_sqrt',
      { kind: 'inv_sqrt', warmupSteps: 10 },
      (step) => (step <= 10 ? warm(step) : lr * Math.sqrt(10 / step)),
    ],
    [
      'dev_perf',
      { kind: 'dev_perf', warmupSteps: 10, decayRate: 0.5, patience: 0, lrMin: 0 },
      (step) => (step <= 10 ? warm(step) : lr),
    ],
  ])('%s follows its formula', (_, config, formula) => {
    for (const [index, rate] of rates(config).entries()) expect(rate / formula(index + 1)).toBeCloseTo(1, 9);
  });

  it('lowers the rate when the validation loss does not fall', () => {
    const config = { kind: 'dev_perf', warmupSteps: 0, decayRate: 0.5, patience: 1, lrMin: 0 } as const;
    const { optimizer, schedule } = make(config);
    const after = [3, 2, 2, 2, 1, 1, 1].map((loss) => {
      schedule.afterEvaluation(loss);
      return optimizer.paramGroups[0]!.lr / lr;
    });
    expect(after).toEqual([1, 1, 1, 0.5, 0.5, 0.5, 0.25]);
  });

  it.each<ResolvedConfig['training']['schedule']>([
    { kind: 'cosine', warmupSteps: 3, etaMin: 0 },
    { kind: 'dev_perf', warmupSteps: 3, decayRate: 0.5, patience: 0, lrMin: 0 },
  ])('goes on from its state: $kind', (config) => {
    const first = make(config);
    for (let i = 0; i < 7; i++) first.schedule.afterStep();
    first.schedule.afterEvaluation(1);
    first.schedule.afterEvaluation(2);
    const second = make(config);
    second.schedule.loadStateDict(JSON.parse(JSON.stringify(first.schedule.stateDict())));
    for (let i = 0; i < 9; i++) {
      expect(second.optimizer.paramGroups[0]!.lr).toBe(first.optimizer.paramGroups[0]!.lr);
      for (const { schedule } of [first, second]) {
        schedule.afterStep();
        schedule.afterEvaluation(2);
      }
    }
  });
});
