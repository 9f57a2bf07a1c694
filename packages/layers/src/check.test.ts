import { nn, randn, type Tensor, tidy } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { collectBalanceLoss, readBalance, readExpertLoad } from './balance/index.js';
import { loadFastMoECheckpoint, saveFastMoECheckpoint } from './checkpoint/index.js';
import { ExpertMLP, FMoELinear } from './experts/index.js';
import { FMoE } from './fmoe.js';
import { FMoETransformerMLP } from './fmoe-transformer-mlp.js';
import { ExpertChoiceGate, type GateOptions, GShardGate, NaiveGate, TopKGate } from './gates/index.js';

const sizes = { numExpert: 4, dModel: 6 };
const expert = (dModel: number) => new nn.Linear(dModel, dModel);
/** What a caller without types could pass. */
// biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
const wrong = (value: unknown): any => value;

function expectError(body: () => unknown, code: string, message: RegExp): void {
  tidy(() => {
    expect(body).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });
}

describe('unknown options are refused by', () => {
  const model = new FMoETransformerMLP({ ...sizes, dHidden: 4 });
  const path = '/nonexistent/model.pt';
  it.each<[string, string, () => unknown]>([
    ['FMoE', 'topk', () => new FMoE(wrong({ ...sizes, expert, topk: 1 }))],
    ['FMoETransformerMLP', 'topk', () => new FMoETransformerMLP(wrong({ ...sizes, dHidden: 4, topk: 1 }))],
    ['FMoETransformerMLP', 'expert', () => new FMoETransformerMLP(wrong({ ...sizes, expert }))],
    [
      'FMoETransformerMLP',
      'experts',
      () => new FMoETransformerMLP(wrong({ ...sizes, experts: new nn.Module() })),
    ],
    ['FMoELinear', 'in', () => new FMoELinear(wrong({ numExpert: 2, inFeatures: 2, outFeatures: 2, in: 3 }))],
    ['ExpertMLP', 'dropout', () => new ExpertMLP(wrong({ ...sizes, dHidden: 4, dropout: 0.1 }))],
    ['TopKGate', 'capacityFactor', () => new TopKGate(wrong({ ...sizes, capacityFactor: 1.2 }))],
    ['ExpertChoiceGate', 'balance', () => new ExpertChoiceGate(wrong({ ...sizes, balance: true }))],
    ['collectBalanceLoss', 'reduce', () => collectBalanceLoss(model, wrong({ reduce: 'sum' }))],
    ['readBalance', 'clear', () => readBalance(model, wrong({ clear: true }))],
    ['readExpertLoad', 'clear', () => readExpertLoad(model, wrong({ clear: true }))],
    ['loadFastMoECheckpoint', 'form', () => loadFastMoECheckpoint(model, path, wrong({ form: 'fused' }))],
    ['saveFastMoECheckpoint', 'key', () => saveFastMoECheckpoint(model, path, wrong({ key: 'model' }))],
  ])('%s: %s', (owner, option, body) => {
    expectError(body, 'ERR_ARGUMENT', new RegExp(`^${owner}: unknown option '${option}'. Options are: `));
  });
});

describe('a subclass', () => {
  interface StridedOptions extends GateOptions {
    stride?: number;
  }
  class StridedGate extends NaiveGate {
    readonly stride: number;
    constructor(options: StridedOptions) {
      super(options);
      this.stride = options.stride ?? 1;
    }
  }

  it('may have options that its base does not know', () => {
    expect(new StridedGate({ ...sizes, stride: 3 }).stride).toBe(3);
    class Layer extends FMoETransformerMLP {}
    expect(new Layer(wrong({ ...sizes, dHidden: 4, name: 'a' })).numExpert).toBe(4);
  });

  it('that names its options has all others refused', () => {
    class NamedGate extends StridedGate {
      static override readonly optionNames: readonly string[] = [...super.optionNames, 'stride'];
    }
    expect(new NamedGate({ ...sizes, stride: 3, gateBias: false }).stride).toBe(3);
    expectError(
      () => new NamedGate(wrong({ ...sizes, strid: 3 })),
      'ERR_ARGUMENT',
      /^NamedGate: unknown option 'strid'\. Options are: dModel, .*, stride$/,
    );
  });
});

describe('wrong values are refused:', () => {
  const layer = (options: object) => new FMoE(wrong({ ...sizes, expert, ...options }));
  it.each<[string, string, RegExp, () => unknown]>([
    [
      'globalBatch',
      'ERR_ARGUMENT',
      /^NaiveGate: .*'globalBatch'.*'false'/,
      () => new NaiveGate(wrong({ ...sizes, globalBatch: 'false' })),
    ],
    ['gateBias', 'ERR_ARGUMENT', /^NaiveGate: .*'gateBias'/, () => layer({ gateBias: 'no' })],
    [
      'normalize',
      'ERR_ARGUMENT',
      /^TopKGate: .*'normalize'/,
      () => new TopKGate(wrong({ ...sizes, normalize: 0 })),
    ],
    [
      'randomRouting',
      'ERR_ARGUMENT',
      /'randomRouting'/,
      () => new GShardGate(wrong({ ...sizes, randomRouting: 'off' })),
    ],
    ['fused', 'ERR_ARGUMENT', /^FMoE: .*'fused'/, () => layer({ fused: 'no' })],
    ['no options', 'ERR_ARGUMENT', /^TopKGate: /, () => new TopKGate(wrong(undefined))],
    ['gateHook', 'ERR_ARGUMENT', /^FMoE: .*'gateHook'/, () => layer({ gateHook: 5 }).forward(randn([3, 6]))],
    [
      'reduction',
      'ERR_ARGUMENT',
      /^collectBalanceLoss: .*'mean', 'sum'.*'max'/,
      () => collectBalanceLoss(layer({}), wrong({ reduction: 'max' })),
    ],
    [
      'form',
      'ERR_ARGUMENT',
      /form must be one of 'fused', 'perExpert'.*'nope'/,
      () => saveFastMoECheckpoint(layer({}), '/nonexistent/model.pt', wrong({ form: 'nope' })),
    ],
    [
      'a nest for a gate of tensors',
      'ERR_ARGUMENT',
      /^NaiveGate: the input is no tensor/,
      () => layer({}).forward(wrong({ a: randn([3, 6]) })),
    ],
  ])('%s', (_, code, message, body) => {
    expectError(body, code, message);
  });

  it('experts that return nothing', () => {
    class Silent extends nn.Module {
      override forward(): void {}
    }
    const experts = new Silent();
    expectError(
      () => new FMoE({ ...sizes, experts }).forward(randn([3, 6])),
      'ERR_SHAPE',
      /Silent\) returned undefined/,
    );
    class Layer extends FMoE {
      override expertFn(): Tensor {
        return wrong(undefined);
      }
    }
    expectError(
      () => new Layer({ ...sizes, expert }).forward(randn([3, 6])),
      'ERR_ARGUMENT',
      /got undefined/,
    );
  });
});

describe('what is printed', () => {
  it('says bias=True in one form', () => {
    const layer = new FMoETransformerMLP({ ...sizes, dHidden: 4 });
    const biases = [...String(layer).matchAll(/bias=(\w+)/g)].map(([, value]) => value);
    expect(biases).toEqual(['True', 'True', 'True']);
    const linear = new FMoELinear({ numExpert: 2, inFeatures: 2, outFeatures: 2, bias: false });
    expect(String(linear)).toContain('bias=False');
  });
});
