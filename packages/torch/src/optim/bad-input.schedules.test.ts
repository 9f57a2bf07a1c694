import { describe } from 'vitest';
import { refuses, wrong } from '../../test/refusals.js';
import type { Tensor } from '../index.js';
import * as torch from '../index.js';

const { optim } = torch;
const leaf = (): Tensor => torch.ones([2], { requiresGrad: true });

describe('schedulers refuse', () => {
  const optimizer = (): torch.optim.SGD => new optim.SGD([leaf()], { lr: 1 });
  const both = (): [torch.optim.SGD, torch.optim.LRScheduler] => {
    const own = optimizer();
    return [own, new optim.LinearLR(own)];
  };
  refuses([
    [
      'a period of 0',
      'ERR_ARGUMENT',
      /tMax is 0, expected an integer of at least 1/,
      () => new optim.CosineAnnealingLR(optimizer(), { tMax: 0 }),
    ],
    [
      'a fractional number of steps',
      'ERR_ARGUMENT',
      /totalIters is 2.5/,
      () => new optim.LinearLR(optimizer(), { totalIters: 2.5 }),
    ],
    [
      'a warm-up from 0',
      'ERR_ARGUMENT',
      /startFactor is 0, expected more than 0/,
      () => new optim.LinearLR(optimizer(), { startFactor: 0 }),
    ],
    [
      'an end above 1',
      'ERR_ARGUMENT',
      /endFactor is 2/,
      () => new optim.LinearLR(optimizer(), { endFactor: 2 }),
    ],
    ['a factor of 0', 'ERR_ARGUMENT', /factor is 0/, () => new optim.ConstantLR(optimizer(), { factor: 0 })],
    [
      'no warm-up steps',
      'ERR_ARGUMENT',
      /warmupSteps is 0/,
      () => new optim.InverseSqrtLR(optimizer(), { warmupSteps: 0 }),
    ],
    [
      'a plateau factor of 1',
      'ERR_ARGUMENT',
      /factor is 1/,
      () => new optim.ReduceLROnPlateau(optimizer(), { factor: 1 }),
    ],
    [
      'an unknown mode',
      'ERR_ARGUMENT',
      /mode is 'low', expected min or max/,
      () => new optim.ReduceLROnPlateau(optimizer(), { mode: wrong('low') }),
    ],
    [
      'lowest rates for other groups',
      'ERR_ARGUMENT',
      /number of minLr is 2/,
      () => new optim.ReduceLROnPlateau(optimizer(), { minLr: [1, 2] }),
    ],
    [
      'lambdas for other groups',
      'ERR_ARGUMENT',
      /2 functions for 1 parameter groups/,
      () => new optim.LambdaLR(optimizer(), [() => 1, () => 1]),
    ],
    [
      'to resume without an initial rate',
      'ERR_ARGUMENT',
      /no initialLr/,
      () => new optim.LinearLR(optimizer(), { lastEpoch: 3 }),
    ],
    ['an empty sequence', 'ERR_ARGUMENT', /at least one/, () => new optim.SequentialLR(optimizer(), [], [])],
    ['an empty chain', 'ERR_ARGUMENT', /at least one/, () => new optim.ChainedScheduler([])],
    [
      'milestones that do not ascend',
      'ERR_ARGUMENT',
      /milestones are \[5, 5\]/,
      () => {
        const [own, part] = both();
        return new optim.SequentialLR(own, [part, new optim.LinearLR(own), new optim.LinearLR(own)], [5, 5]);
      },
    ],
    [
      'schedulers of two optimizers',
      'ERR_ARGUMENT',
      /scheduler 1 belongs to another/,
      () => new optim.ChainedScheduler([both()[1], both()[1]]),
    ],
    [
      'a plateau in a sequence',
      'ERR_ARGUMENT',
      /Plateau and composed/,
      () => {
        const own = optimizer();
        return new optim.SequentialLR(own, wrong([new optim.ReduceLROnPlateau(own)]), []);
      },
    ],
    [
      'a state of other groups',
      'ERR_STATE_DICT',
      /'base_lrs' has 2 values, but the optimizer has 1/,
      () => {
        const [, part] = both();
        part.loadStateDict({ ...part.stateDict(), base_lrs: [1, 2] });
      },
    ],
    [
      'a state without a step',
      'ERR_STATE_DICT',
      /'last_epoch' is undefined/,
      () => {
        const [, part] = both();
        const { last_epoch: _gone, ...rest } = part.stateDict();
        part.loadStateDict(rest);
      },
    ],
    [
      'a state of another scheduler',
      'ERR_STATE_DICT',
      /'T_max' is undefined/,
      () => {
        new optim.CosineAnnealingLR(optimizer(), { tMax: 3 }).loadStateDict(both()[1].stateDict());
      },
    ],
    [
      'a sequence state of other length',
      'ERR_STATE_DICT',
      /states of 1 schedulers/,
      () => {
        const [own, part] = both();
        new optim.SequentialLR(own, [part], []).loadStateDict({ _schedulers: [] });
      },
    ],
    [
      'a plateau state without a mode',
      'ERR_STATE_DICT',
      /'mode'/,
      () => new optim.ReduceLROnPlateau(optimizer()).loadStateDict({}),
    ],
  ]);
});

describe('clipping refuses', () => {
  refuses([
    ['a negative limit', 'ERR_ARGUMENT', /maxNorm is -1/, () => optim.clipGradNorm_([leaf()], -1)],
    [
      'an order of 0',
      'ERR_ARGUMENT',
      /normType is 0/,
      () => optim.clipGradNorm_([leaf()], 1, { normType: 0 }),
    ],
    [
      'what is no tensor',
      'ERR_ARGUMENT',
      /parameter 1 is not a tensor/,
      () => optim.clipGradNorm_(wrong([leaf(), 3]), 1),
    ],
    ['what is no list', 'ERR_ARGUMENT', /parameters must be/, () => optim.clipGradNorm_(wrong(3), 1)],
    [
      'a value that is no number',
      'ERR_ARGUMENT',
      /clipValue is NaN/,
      () => optim.clipGradValue_([leaf()], Number.NaN),
    ],
  ]);
});

describe('GradScaler refuses', () => {
  const scaled = (): { scaler: torch.optim.GradScaler; optimizer: torch.optim.SGD } => {
    const w = leaf();
    const scaler = new optim.GradScaler();
    scaler.scale(w.sum()).backward();
    return { scaler, optimizer: new optim.SGD([w], { lr: 1 }) };
  };
  refuses([
    [
      'a growth factor of 1',
      'ERR_ARGUMENT',
      /growthFactor is 1/,
      () => new optim.GradScaler({ growthFactor: 1 }),
    ],
    [
      'a backoff factor of 1',
      'ERR_ARGUMENT',
      /backoffFactor is 1/,
      () => new optim.GradScaler({ backoffFactor: 1 }),
    ],
    [
      'an interval of 0',
      'ERR_ARGUMENT',
      /growthInterval is 0/,
      () => new optim.GradScaler({ growthInterval: 0 }),
    ],
    ['a scale of 0', 'ERR_ARGUMENT', /scale is 0/, () => new optim.GradScaler({ initScale: 0 })],
    [
      'to step before scale()',
      'ERR_ARGUMENT',
      /step\(\) before any scale/,
      () => new optim.GradScaler().step(new optim.SGD([leaf()])),
    ],
    [
      'to unscale twice',
      'ERR_ARGUMENT',
      /unscale_\(\) was called already/,
      () => {
        const { scaler, optimizer } = scaled();
        scaler.unscale_(optimizer);
        scaler.unscale_(optimizer);
      },
    ],
    [
      'to unscale after the step',
      'ERR_ARGUMENT',
      /must come before step/,
      () => {
        const { scaler, optimizer } = scaled();
        scaler.step(optimizer);
        scaler.unscale_(optimizer);
      },
    ],
    [
      'to step twice',
      'ERR_ARGUMENT',
      /step\(\) was called already/,
      () => {
        const { scaler, optimizer } = scaled();
        scaler.step(optimizer);
        scaler.step(optimizer);
      },
    ],
    ['to update without a step', 'ERR_ARGUMENT', /update\(\) without a step/, () => scaled().scaler.update()],
    [
      'to unscale float16 gradients',
      'ERR_DTYPE',
      /float16 gradients/,
      () => {
        const w = torch.ones([2], { dtype: 'float16', requiresGrad: true });
        w.grad = torch.ones([2], { dtype: 'float16' });
        const { scaler } = scaled();
        scaler.unscale_(new optim.SGD([w], { lr: 1 }));
      },
    ],
    [
      'an empty state',
      'ERR_STATE_DICT',
      /disabled scaler's state is empty/,
      () => new optim.GradScaler().loadStateDict({}),
    ],
  ]);
});
