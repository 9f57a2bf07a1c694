import { grad, manualSeed, nn, randn, type Tensor, tidy } from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { bruteForce, expectSameOutputAndGradients, unevenWeights } from '../../test/brute-force.js';
import { fixedGate } from '../../test/fixed-gate.js';
import { ExpertMLP, FMoE, FMoELinear, FMoETransformerMLP, GatedActivation, SwiGLU } from '../index.js';

beforeEach(() => {
  manualSeed(11);
});

const sizes = { numExpert: 4, dModel: 6, dHidden: 10, topK: 2 };

/** The formulas of the activations, from their papers. */
const formulas: Record<string, (h: Tensor) => Tensor> = {
  gelu: (h) => gelu(h),
  geluTanh: (h) =>
    h.mul(
      h
        .add(h.pow(3).mul(0.044715))
        .mul(Math.sqrt(2 / Math.PI))
        .tanh()
        .add(1)
        .div(2),
    ),
  relu: (h) => h.clamp({ min: 0 }),
  silu: (h) => h.mul(h.sigmoid()),
  swiglu: (h) => gated(h, (g) => g.mul(g.sigmoid())),
  geglu: (h) => gated(h, gelu),
  reglu: (h) => gated(h, (g) => g.clamp({ min: 0 })),
};

function gelu(h: Tensor): Tensor {
  return h.mul(h.div(Math.SQRT2).erf().add(1).div(2));
}

function gated(h: Tensor, act: (gate: Tensor) => Tensor): Tensor {
  const half = h.shape[1]! / 2;
  return act(h.narrow(1, 0, half)).mul(h.narrow(1, half, half));
}

/** One expert on one row, from the parameters. */
function rowExpert(experts: ExpertMLP, formula: (h: Tensor) => Tensor) {
  const linear = ({ weight, bias }: { weight: Tensor; bias: Tensor | null }, e: number, row: Tensor) => {
    const product = row.matmul(weight.select(0, e).t());
    return bias ? product.add(bias.select(0, e)) : product;
  };
  return (e: number, row: Tensor) => linear(experts.h4toh, e, formula(linear(experts.htoh4, e, row)));
}

describeEachDevice('FMoETransformerMLP', (device) => {
  const place = { dtype: 'float64', device } as const;
  // Drops, a token without any expert, an expert without rows.
  const gate = fixedGate([
    [0, 2],
    [2, -1],
    [-1, -1],
    [2, 0],
  ]);

  for (const activation of ['gelu', 'geluTanh', 'relu', 'silu', 'swiglu', 'geglu', 'reglu'] as const) {
    for (const bias of [true, false]) {
      it(`equals the dense evaluation of each token, fused and not: ${activation}, ${bias ? '' : 'no '}bias`, () => {
        tidy(() => {
          const layer = new FMoETransformerMLP({ ...sizes, activation, bias, gate }).to(place);
          const x = randn([9, sizes.dModel], { ...place, requiresGrad: true });
          const dense = (input: Tensor) =>
            bruteForce(layer.gate, input, rowExpert(layer.experts, formulas[activation]!));
          expect(layer.isFused).toBe(true);
          expectSameOutputAndGradients(layer, x, dense, unevenWeights);
          layer.fused = false;
          expectSameOutputAndGradients(layer, x, dense, unevenWeights);
        });
      });
    }
  }

  it('has second derivatives when it is not fused', () => {
    tidy(() => {
      const layer = new FMoETransformerMLP({ ...sizes, gate, fused: false }).to(place);
      const x = randn([5, sizes.dModel], { ...place, requiresGrad: true });
      const twice = (output: Tensor) => {
        const [first] = grad([output.sin().sum()], [x], { createGraph: true });
        return grad([first!.square().sum()], [x])[0]!;
      };
      const dense = bruteForce(layer.gate, x, rowExpert(layer.experts, gelu));
      expectAllClose(twice(layer.forward(x)), twice(dense), { rtol: 1e-11, atol: 1e-12 });
      layer.fused = true;
      expect(() => twice(layer.forward(x))).toThrow(expect.objectContaining({ code: 'ERR_NOT_IMPLEMENTED' }));
    });
  });
});

describe('the fused operator', () => {
  const layerWith = (activation: nn.Module) => new FMoETransformerMLP({ ...sizes, activation });

  class DoubledReLU extends nn.ReLU {
    override forward(input: Tensor): Tensor {
      return super.forward(input).mul(2);
    }
  }
  class RenamedReLU extends nn.ReLU {}

  it('is used for activations that it knows, also in a row with a dropout that does nothing', () => {
    for (const activation of [
      new nn.ReLU({ inplace: true }),
      new nn.GELU(),
      new nn.SiLU(),
      new SwiGLU(),
      new RenamedReLU(),
      new nn.Sequential(new nn.ReLU({ inplace: true }), new nn.Dropout(0)),
      new nn.Sequential(new nn.Identity(), new nn.Sequential(new nn.GELU())),
    ]) {
      expect(layerWith(activation).isFused).toBe(true);
    }
    const dropping = layerWith(new nn.Sequential(new nn.ReLU(), new nn.Dropout(0.1)));
    expect(dropping.isFused).toBe(false);
    expect(dropping.eval().isFused).toBe(true);
  });

  it('is not used for other activations, replaced layers or forwards, hooks, and an expertFn of one own', () => {
    expect(layerWith(new nn.Tanh()).isFused).toBe(false);
    expect(layerWith(new DoubledReLU()).isFused).toBe(false);
    expect(layerWith(new nn.Sequential(new nn.ReLU(), new nn.ReLU())).isFused).toBe(false);
    expect(layerWith(new nn.Identity()).isFused).toBe(false);

    class OtherLayer extends FMoETransformerMLP {
      override expertFn(rows: Tensor, offsets: Tensor): Tensor {
        return super.expertFn(rows, offsets).mul(2);
      }
    }
    expect(new OtherLayer(sizes).isFused).toBe(false);

    class OtherExperts extends ExpertMLP {
      override forward(rows: Tensor, offsets: Tensor): Tensor {
        return super.forward(rows, offsets).mul(2);
      }
    }
    const { dHidden: _, ...layerSizes } = sizes;
    expect(new FMoE({ ...layerSizes, experts: new OtherExperts(sizes) }).isFused).toBe(false);

    for (const part of ['experts', 'htoh4', 'activation'] as const) {
      const layer = new FMoETransformerMLP(sizes);
      const seen: number[][] = [];
      const module = part === 'experts' ? layer.experts : layer.experts[part];
      const hook = module.registerForwardHook((_, args) => void seen.push([...(args[0] as Tensor).shape]));
      expect(layer.isFused).toBe(false);
      layer.forward(randn([3, 6]));
      expect(seen).toEqual([[6, part === 'activation' ? 10 : 6]]);
      hook.remove();
      expect(layer.isFused).toBe(true);
    }
  });

  it('gives an overridden expertFn the rows of each expert', () => {
    class Doubling extends FMoETransformerMLP {
      override expertFn(rows: Tensor, offsets: Tensor): Tensor {
        return super.expertFn(rows, offsets).mul(2);
      }
    }
    const layer = new Doubling(sizes).to('float64');
    const x = randn([7, 6], { dtype: 'float64', requiresGrad: true });
    const plain = rowExpert(layer.experts, gelu);
    expectSameOutputAndGradients(
      layer,
      x,
      (input) => bruteForce(layer.gate, input, (e, row) => plain(e, row).mul(2)),
      unevenWeights,
    );
  });

  it('gives way to a gated activation of one own, which halves the width', () => {
    class SquareGLU extends GatedActivation {
      override forward(input: Tensor): Tensor {
        const [gate, linear] = input.chunk(2, -1) as [Tensor, Tensor];
        return gate.square().mul(linear);
      }
    }
    const layer = new FMoETransformerMLP({ ...sizes, activation: new SquareGLU() }).to('float64');
    expect(layer.isFused).toBe(false);
    expect(layer.experts.htoh4.weight.shape).toEqual([4, 20, 6]);
    const x = randn([5, 6], { dtype: 'float64', requiresGrad: true });
    const formula = (h: Tensor) => gated(h, (g) => g.square());
    expectSameOutputAndGradients(
      layer,
      x,
      (input) => bruteForce(layer.gate, input, rowExpert(layer.experts, formula)),
      unevenWeights,
    );
  });
});

describe('ExpertMLP refuses', () => {
  it('an unknown activation', () => {
    expect(() => new FMoETransformerMLP({ ...sizes, activation: 'mish' as never })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/gelu, .*got mish/) }),
    );
  });
  it('an FMoELinear of no experts', () => {
    expect(() => new FMoELinear({ numExpert: 0, inFeatures: 1, outFeatures: 1 })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT' }),
    );
  });
});
