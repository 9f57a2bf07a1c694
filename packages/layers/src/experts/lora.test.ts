import { manualSeed, nn, optim, randn, type Tensor, tidy, zeros } from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { bruteForce, expectSameOutputAndGradients, unevenWeights } from '../../test/brute-force.js';
import {
  addLoRA,
  type ExpertParameter,
  FMoETransformerMLP,
  type LoRALinear,
  mergeLoRA,
  type TaggedParameter,
} from '../index.js';

beforeEach(() => {
  manualSeed(12);
});

const sizes = { numExpert: 3, dModel: 6, dHidden: 8 };

/** y = x (W + 4/2 · B A)ᵀ + b in both layers: the definition with a rank of 2 and an alpha of 4. */
function rowExpert(layer: FMoETransformerMLP) {
  const linear = (part: 'htoh4' | 'h4toh', e: number, row: Tensor) => {
    const { weight, bias, lora_A, lora_B } = layer.experts[part] as LoRALinear;
    const update = lora_B.select(0, e).matmul(lora_A.select(0, e)).mul(2);
    return row.matmul(weight.select(0, e).add(update).t()).add(bias!.select(0, e));
  };
  return (e: number, row: Tensor) => linear('h4toh', e, linear('htoh4', e, row).gelu());
}

describeEachDevice('LoRA on experts', (device) => {
  const place = { dtype: 'float64', device } as const;

  it('changes nothing at first, then equals the dense evaluation with W + scale · B A', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP(sizes).to(place);
      const x = randn([9, 6], { ...place, requiresGrad: true });
      const before = layer.forward(x);
      const added = addLoRA(layer, { rank: 2, alpha: 4 });
      expect(added.map(({ shape }) => shape)).toEqual([
        [3, 2, 6],
        [3, 8, 2],
        [3, 2, 8],
        [3, 6, 2],
      ]);
      expect(
        added.every((parameter) => parameter.device === before.device && parameter.dtype === 'float64'),
      ).toBe(true);
      expect(layer.isFused).toBe(false);
      expectAllClose(layer.forward(x), before, { rtol: 1e-12, atol: 1e-12 });
      for (const parameter of added) nn.init.uniform_(parameter, -1, 1);
      const trained = { parameters: () => layer.parameters().filter((p) => p.requiresGrad) };
      const view = Object.assign(Object.create(layer), {
        ...trained,
        namedParameters: () => [...layer.namedParameters()].filter(([, p]) => p.requiresGrad),
      }) as FMoETransformerMLP;
      expectSameOutputAndGradients(
        Object.assign(view, { forward: (input: Tensor) => layer.forward(input) }),
        x,
        (input) => bruteForce(layer.gate, input, rowExpert(layer)),
        unevenWeights,
      );
    });
  });

  it('trains the updates alone and merges them into the weights', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP(sizes).to(place);
      const keys = Object.keys(layer.stateDict());
      layer.requiresGrad_(false);
      layer.experts.htoh4.weight.requiresGrad = true;
      const added = addLoRA(layer, { rank: 2, alpha: 4 });
      const frozen = [...layer.namedParameters()].filter(([name]) => !name.includes('lora'));
      expect(frozen.every(([, parameter]) => !parameter.requiresGrad)).toBe(true);
      const values = frozen.map(([, parameter]) => parameter.detach().clone());
      const optimizer = new optim.SGD(added, { lr: 0.5 });
      const x = randn([9, 6], place);
      for (let step = 0; step < 2; step++) {
        optimizer.zeroGrad();
        layer.forward(x).square().sum().backward();
        optimizer.step();
      }
      frozen.forEach(([, parameter], i) => {
        expectAllClose(parameter.detach(), values[i]!, { rtol: 0, atol: 0 });
      });
      const adapted = layer.forward(x);
      mergeLoRA(layer);
      expect(Object.keys(layer.stateDict())).toEqual(keys);
      expect(layer.isFused).toBe(true);
      expectAllClose(layer.forward(x), adapted, { rtol: 1e-12, atol: 1e-12 });
      expect(layer.experts.htoh4.weight.requiresGrad).toBe(true);
      expect(layer.experts.h4toh.weight.requiresGrad).toBe(false);
    });
  });
});

describe('addLoRA', () => {
  it('keeps the names of the base, so that its checkpoints load', () => {
    const layer = new FMoETransformerMLP(sizes);
    const state = layer.stateDict();
    addLoRA(layer, { rank: 1 });
    expect(layer.loadStateDict(state, { strict: false }).unexpectedKeys).toEqual([]);
    expect(Object.keys(layer.stateDict()).filter((key) => key.startsWith('experts.htoh4'))).toEqual([
      'experts.htoh4.weight',
      'experts.htoh4.bias',
      'experts.htoh4.lora_A',
      'experts.htoh4.lora_B',
    ]);
  });

  it('tags the updates as the weights beside them', () => {
    const layer = new FMoETransformerMLP({ ...sizes, expertDpComm: 'experts' });
    const added = addLoRA(layer, { rank: 1 }) as (TaggedParameter & ExpertParameter)[];
    for (const { dp_comm, experts } of added) {
      expect([dp_comm, experts]).toEqual(['experts', { total: 3, ids: [0, 1, 2] }]);
    }
  });

  it('drops inputs of the update in training alone', () => {
    const layer = new FMoETransformerMLP(sizes);
    for (const parameter of addLoRA(layer, { rank: 2, dropout: 0.5 })) nn.init.uniform_(parameter, -1, 1);
    const x = randn([20, 6]);
    layer.eval();
    expectAllClose(layer.forward(x), layer.forward(x), { rtol: 0, atol: 0 });
    layer.train();
    expect(layer.forward(x).sub(layer.forward(x)).abs().max().item()).toBeGreaterThan(0.01);
  });

  it.each([
    ['a rank of 0', () => addLoRA(new FMoETransformerMLP(sizes), { rank: 0 }), /rank/],
    ['a negative alpha', () => addLoRA(new FMoETransformerMLP(sizes), { rank: 1, alpha: -1 }), /alpha/],
    [
      'a dropout above 1',
      () => addLoRA(new FMoETransformerMLP(sizes), { rank: 1, dropout: 2 }),
      /p is a probability/,
    ],
    ['a model without experts', () => addLoRA(new nn.Linear(2, 2), { rank: 1 }), /no experts/],
  ])('refuses %s', (_, call, message) => {
    expect(call).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  it('gives experts without rows zero gradients', () => {
    const layer = new FMoETransformerMLP({ ...sizes, topK: 1 });
    const added = addLoRA(layer, { rank: 2 });
    layer
      .forward(zeros([0, 6]))
      .sum()
      .backward();
    for (const parameter of added) expect(parameter.grad!.abs().sum().item()).toBe(0);
  });
});
