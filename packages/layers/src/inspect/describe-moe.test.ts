import { nn, type Tensor } from '@fmoe/torch';
import { describe, expect, it } from 'vitest';
import { HalvingExpert } from '../../test/experts.js';
import { addLoRA, describeMoE, FMoE, FMoETransformerMLP } from '../index.js';

class Model extends nn.Module {
  readonly embed = new nn.Linear(3, 6);
  readonly fused = new FMoETransformerMLP({ numExpert: 4, dModel: 6, dHidden: 10, topK: 2 });
  readonly gated = new FMoETransformerMLP({
    numExpert: 2,
    dModel: 6,
    dHidden: 5,
    topK: 1,
    activation: 'swiglu',
    bias: false,
    fused: false,
    gateBias: false,
    sharedExpert: (dModel) => new nn.Linear(dModel, dModel),
  });
  readonly listed = new FMoE({
    dModel: 6,
    topK: 2,
    expert: [(d) => new nn.Linear(d, d), () => new nn.Identity()],
  });
}

describe('describeMoE', () => {
  it('equals counts by hand', () => {
    const { layers } = describeMoE(new Model());
    expect(layers).toEqual([
      {
        name: 'fused',
        gate: 'NaiveGate',
        expert: 'ExpertMLP',
        numExpert: 4,
        topK: 2,
        fused: true,
        // Router 4·6+4; each expert 10·6+10 and 6·10+6.
        totalParameters: 28 + 4 * 136,
        activeParameters: 28 + 2 * 136,
        flopsPerToken: 2 * 24 + 2 * (2 * 60 + 2 * 60),
        // The token and two pre-activations in float32; two scores; two slots in two index tensors.
        savedBytesPerToken: 4 * (6 + 2 * 10) + 2 * 4 + 2 * 2 * 8,
      },
      {
        name: 'gated',
        gate: 'NaiveGate',
        expert: 'ExpertMLP',
        numExpert: 2,
        topK: 1,
        fused: false,
        totalParameters: 12 + 42 + 2 * (10 * 6 + 6 * 5),
        activeParameters: 12 + 42 + 90,
        flopsPerToken: 2 * 12 + 2 * 36 + 2 * (60 + 30),
        // The row and its output; the pre-activation, SiLU of the gate, and the product.
        savedBytesPerToken: 4 * (6 + 6 + 10 + 5 + 5) + 4 + 2 * 8,
      },
      {
        name: 'listed',
        gate: 'NaiveGate',
        expert: 'Linear, Identity',
        numExpert: 2,
        topK: 2,
        fused: false,
        totalParameters: 14 + 42,
        activeParameters: 14 + 42,
        flopsPerToken: 2 * 12 + 2 * 36,
        savedBytesPerToken: 4 * 2 * 12 + 2 * 4 + 2 * 2 * 8,
      },
    ]);
  });

  it('leaves out costs that are not known, unless the expert tells them', () => {
    class TellingExpert extends HalvingExpert {
      costPerRow() {
        return { flops: 36, savedNumbers: 0 };
      }
    }
    const layer = (expert: new (dModel: number) => nn.Module) =>
      new FMoE({ numExpert: 2, topK: 1, dModel: 6, expert });
    const [unknown] = describeMoE(layer(HalvingExpert)).layers;
    expect([unknown!.flopsPerToken, unknown!.savedBytesPerToken]).toEqual([null, null]);
    expect(unknown!.totalParameters).toBe(14 + 2 * 21);
    const [known] = describeMoE(layer(TellingExpert)).layers;
    expect(known!.flopsPerToken).toBe(2 * 12 + 36);
    expect(known!.name).toBe('(model)');
  });

  it('counts bytes in the dtype of the experts', () => {
    const [layer] = describeMoE(
      new FMoETransformerMLP({ numExpert: 4, dModel: 6, dHidden: 10, topK: 2 }).to('bfloat16'),
    ).layers;
    expect(layer!.savedBytesPerToken).toBe(2 * (6 + 2 * 10) + 2 * 4 + 2 * 2 * 8);
  });

  it.each([
    [0, 0],
    // The masks, and the dropped inputs, of widths 6 and 10.
    [0.5, 2 * (6 + 10)],
  ])('counts low-rank updates, with dropout %f', (dropout, dropped) => {
    const layer = new FMoETransformerMLP({ numExpert: 4, dModel: 6, dHidden: 10, topK: 2 });
    addLoRA(layer, { rank: 3, dropout });
    const [found] = describeMoE(layer).layers;
    // Beside each weight of 60 numbers, 3·6 + 10·3 of A and B, and 3·10 + 6·3.
    expect(found!.totalParameters).toBe(28 + 4 * (136 + 96));
    expect(found!.flopsPerToken).toBe(2 * 24 + 2 * (2 * 120 + 2 * 96));
    // The row and its output, pre-activation and activation, and two rows of 3 between A and B.
    expect(found!.savedBytesPerToken).toBe(4 * 2 * (6 + 6 + 10 + 10 + 3 + 3 + dropped) + 2 * 4 + 2 * 2 * 8);
  });

  it('prints a table', () => {
    expect(String(describeMoE(new Model()))).toBe(
      [
        'layer     gate       experts             top-k  parameters  active  FLOPs/token  saved/token',
        'fused     NaiveGate  4 ExpertMLP, fused      2         572     300          528        144 B',
        'gated     NaiveGate  2 ExpertMLP             1         234     144          276        148 B',
        'listed    NaiveGate  2 Linear, Identity      2          56      56           96        136 B',
        '3 in all                                               862     500          900        428 B',
      ].join('\n'),
    );
    expect(String(describeMoE(new nn.Linear(2, 2)))).toBe('no MoE layers');
  });

  it('runs nothing', () => {
    class Refusing extends nn.Linear {
      override forward(): Tensor {
        throw new Error('must not run');
      }
    }
    expect(() =>
      describeMoE(new FMoE({ numExpert: 2, dModel: 6, expert: (d) => new Refusing(d, d) })),
    ).not.toThrow();
  });
});
