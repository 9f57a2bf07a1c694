import { arange, empty, nn, ones, rand, randn, type Tensor, tensor, zeros } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { HalvingExpert } from '../../test/experts.js';
import {
  BaseGate,
  type GateOptions,
  type GateSource,
  NaiveGate,
  NoisyGate,
  type Route,
  type TokenRoute,
} from '../index.js';
import { type Check, runCheck } from './conformance.js';
import { expertChecks } from './expert-conformance.js';
import { gateChecks } from './gate-conformance.js';
import { expertConformance, gateConformance } from './index.js';

expertConformance('HalvingExpert', HalvingExpert);
expertConformance('nn.Identity', () => new nn.Identity());
gateConformance('NaiveGate', NaiveGate);
gateConformance('NaiveGate with one expert', NaiveGate, { numExpert: 1, topK: 1 });
gateConformance('NoisyGate', NoisyGate, { topK: 3 });

/** The titles of the checks that a plug-in does not pass. */
function failures<Context>(checks: Readonly<Record<string, Check<Context>>>, context: Context) {
  return Object.keys(checks).filter((title) => {
    try {
      runCheck(checks[title]!, context, 'cpu');
      return false;
    } catch {
      return true;
    }
  });
}

describe('expertConformance finds', () => {
  const kept: Tensor[] = [];
  const linear = (dModel: number) => new nn.Linear(dModel, dModel);
  /** A linear expert whose forward was changed. */
  const changed = (forward: (rows: Tensor, layer: nn.Linear) => unknown) => (dModel: number) => {
    class Changed extends nn.Linear {
      override forward(rows: Tensor): Tensor {
        return forward(rows, this) as Tensor;
      }
    }
    return new Changed(dModel, dModel);
  };
  const plain = (rows: Tensor, layer: nn.Linear) => rows.matmul(layer.weight.t()).add(layer.bias!);

  it.each<[string, (dModel: number) => nn.Module, string]>([
    ['a sum over the rows', changed((rows, l) => plain(rows, l).sum([0], true)), 'maps [r, D]'],
    [
      'rows that need company',
      changed((rows, l) => plain(rows.sub(rows.mean([0], true)), l)),
      'computes each row',
    ],
    ['a wrong gradient', changed((rows, l) => plain(rows.mul(2).sub(rows.detach()), l)), 'has the gradients'],
    [
      'a pass without rows that skips the parameters',
      changed((rows, l) => (rows.shape[0] === 0 ? rows.mul(1) : plain(rows, l))),
      'gives its parameters zero gradients',
    ],
    [
      'noise that no seed gives',
      changed((rows, l) => plain(rows, l).add(Math.random())),
      'gives the same bits',
    ],
    [
      'a tensor that is kept',
      changed((rows, l) => {
        kept.push(keepOne());
        return plain(rows, l);
      }),
      'leaves no tensors',
    ],
    ['float32 for bfloat16', changed((rows, l) => plain(rows, l).float()), 'computes in bfloat16'],
    [
      'state that is no part of the state dict',
      (dModel) => Object.assign(linear(dModel), { secret: randn([1]), forward: secretForward }),
      'computes the same after',
    ],
  ])('%s', (_, expert, title) => {
    expect(failures(expertChecks, { expert, dModel: 4 }).some((failed) => failed.startsWith(title))).toBe(
      true,
    );
  });

  it('nothing wrong with a linear expert', () => {
    expect(failures(expertChecks, { expert: linear, dModel: 4 })).toEqual([]);
  });
});

function secretForward(this: nn.Linear & { secret: Tensor }, rows: Tensor): Tensor {
  return rows.matmul(this.weight.t()).mul(this.secret.to(rows.dtype));
}

function keepOne(): Tensor {
  return new nn.Parameter(zeros([1]));
}

describe('gateConformance finds', () => {
  const changed = (
    forward: (x: Tensor, plain: () => TokenRoute, gate: NaiveGate) => TokenRoute,
  ): GateSource => {
    class Changed extends NaiveGate {
      override forward(x: Tensor): TokenRoute {
        return forward(x, () => super.forward(x) as TokenRoute, this);
      }
    }
    return Changed;
  };
  /** Routes by a vector that is neither parameter nor buffer. */
  class SecretGate extends BaseGate {
    readonly secret: number;
    constructor(options: GateOptions) {
      super(options);
      this.secret = rand([]).item();
    }
    override forward(x: Tensor): Route {
      const topIdx = arange(this.topK, { dtype: 'int64', device: x.device }).expand([x.shape[0]!, this.topK]);
      return { topIdx, topScore: ones(topIdx.shape, { device: x.device }).mul(this.secret) };
    }
  }
  /** Takes anything. */
  class CarelessGate extends BaseGate {
    override forward(x: Tensor): Route {
      const topIdx = zeros([x.shape[0]!, this.topK], { dtype: 'int64' });
      return { topIdx, topScore: empty([x.shape[0]!, this.topK]).fill_(1) };
    }
  }

  it.each<[string, GateSource, string]>([
    [
      'one route too few',
      changed(
        (x, _, gate) =>
          NaiveGate.prototype.forward.call(gate, x.narrow(0, 0, Math.max(0, x.shape[0]! - 1))) as TokenRoute,
      ),
      'returns a route',
    ],
    [
      'scores that are not finite',
      changed((_, plain) => ({ ...plain(), topScore: plain().topScore.div(0) })),
      'returns a route',
    ],
    ['an expert named twice', CarelessGate, 'names no expert twice'],
    ['tokens of any width', CarelessGate, 'refuses tokens'],
    [
      'a wrong gradient',
      changed((_, plain) => {
        const route = plain();
        return { ...route, topScore: route.topScore.mul(2).sub(route.topScore.detach()) };
      }),
      'has scores with the gradients',
    ],
    [
      'a loss that is no number',
      changed((x, plain, gate) => {
        const route = plain();
        gate.setLoss(x.mean());
        return route;
      }),
      'leaves losses',
    ],
    ['state that is no part of the state dict', SecretGate, 'decides the same after'],
    [
      'noise that no seed gives',
      changed((_, plain) => ({ ...plain(), topScore: plain().topScore.mul(Math.random()) })),
      'decides the same for',
    ],
    [
      'a tensor that is kept',
      changed((_, plain, gate) => {
        (gate as unknown as { held: Tensor[] }).held ??= [];
        (gate as unknown as { held: Tensor[] }).held.push(keepOne());
        return plain();
      }),
      'leaves no tensors',
    ],
    [
      'scores that are no tensor of floating-point numbers',
      changed((_, plain) => ({ ...plain(), topScore: tensor(1, { dtype: 'int64' }) })),
      'routes an FMoE',
    ],
  ])('%s', (_, gate, title) => {
    const context = { gate, dModel: 4, numExpert: 3, topK: 2 };
    expect(failures(gateChecks, context).some((failed) => failed.startsWith(title))).toBe(true);
  });
});
