import { describeMoE, FMoE } from '@fmoe/layers';
import { expertConformance } from '@fmoe/layers/testing';
import { manualSeed, optim, randn, tidy } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { ChebyshevLayer, KANExpert } from '@fmoe-examples/kan-expert';
import { beforeEach, describe, expect, it } from 'vitest';

beforeEach(() => {
  manualSeed(2);
});

expertConformance('KANExpert', KANExpert);
expertConformance('KANExpert of degree 1', (dModel) => new KANExpert(dModel, { degree: 1, dHidden: 3 }), {
  dModel: 5,
});

describe('ChebyshevLayer', () => {
  it('equals the sum of cosines: T_g(x) = cos(g arccos x)', () => {
    tidy(() => {
      const layer = new ChebyshevLayer(3, 2, 4).to('float64');
      const x = randn([5, 3], { dtype: 'float64' });
      const [rows, coefficients] = [x.toArray(), layer.coefficients.toArray()] as [number[][], number[][]];
      const expected = rows.map((row) =>
        coefficients.map((series) =>
          series.reduce((sum, c, term) => {
            const [input, g] = [Math.floor(term / 5), term % 5];
            return sum + c * Math.cos(g * Math.acos(Math.tanh(row[input]!)));
          }, 0),
        ),
      );
      expectAllClose(layer.forward(x), expected, { rtol: 1e-12, atol: 1e-12 });
    });
  });
});

describe('KANExpert', () => {
  it('learns a function of one variable', () => {
    const expert = new KANExpert(1, { dHidden: 2, degree: 5 });
    const layer = new FMoE({ numExpert: 1, topK: 1, dModel: 1, expert: () => expert });
    const optimizer = new optim.Adam(layer.parameters(), { lr: 0.02 });
    const loss = () => {
      const x = randn([256, 1]);
      return layer.forward(x).sub(x.mul(3).sin()).square().mean();
    };
    const before = tidy(() => loss().item());
    for (let step = 0; step < 300; step++) {
      tidy(() => {
        optimizer.zeroGrad();
        loss().backward();
        optimizer.step();
      });
    }
    expect(tidy(() => loss().item())).toBeLessThan(before / 10);
    optimizer.dispose();
  });

  it('says what it costs', () => {
    const layer = new FMoE({ numExpert: 2, topK: 1, dModel: 4, expert: KANExpert });
    const [described] = describeMoE(layer).layers;
    // Router 2·4; products 4·4 × 2 and 2·4 × 4.
    expect(described!.flopsPerToken).toBe(2 * 8 + 2 * (16 * 2 + 8 * 4));
    expect(described!.expert).toBe('KANExpert');
  });

  it('refuses sizes that are no positive integers', () => {
    for (const options of [{ degree: 0 }, { dHidden: 1.5 }]) {
      expect(() => new KANExpert(4, options)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    }
  });
});
