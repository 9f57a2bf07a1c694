import { expect, it } from 'vitest';
import { decode, type EncodedTensor, readFixture } from '../../../test/support/fixtures.js';
import * as torch from '../../index.js';
import { describeEachDevice, expectAllClose } from '../../testing/index.js';
import { functional as F } from '../index.js';

interface AttentionCase {
  name: string;
  args: { isCausal?: boolean; scale?: number; mask?: boolean; enableGqa?: boolean };
  dtype: 'float64' | 'float32';
  inputs: [EncodedTensor, EncodedTensor, EncodedTensor];
  extra: EncodedTensor[];
  output: EncodedTensor;
  cotangent: EncodedTensor;
  inputGrads: EncodedTensor[];
}

const TOLERANCES = { float64: { rtol: 1e-10, atol: 1e-11 }, float32: { rtol: 1e-4, atol: 1e-5 } };

describeEachDevice('scaledDotProductAttention against PyTorch', (device) => {
  for (const example of readFixture<AttentionCase>('nn-functional.json')) {
    it(`${JSON.stringify(example.args)} in ${example.dtype}`, () => {
      torch.tidy(() => {
        const tolerance = TOLERANCES[example.dtype];
        const [q, k, v] = example.inputs.map((input) => decode(input, device).requiresGrad_()) as [
          torch.Tensor,
          torch.Tensor,
          torch.Tensor,
        ];
        const { mask, ...options } = example.args;
        const attnMask = mask ? decode(example.extra[0] as EncodedTensor, device) : null;
        const output = F.scaledDotProductAttention(q, k, v, { ...options, attnMask });
        expectAllClose(output, decode(example.output, device), tolerance);
        output.backward(decode(example.cotangent, device));
        [q, k, v].forEach((input, i) => {
          expectAllClose(
            input.grad as torch.Tensor,
            decode(example.inputGrads[i] as EncodedTensor, device),
            tolerance,
          );
        });
      });
    });
  }
});

describeEachDevice('dropout', (device) => {
  it('drops about the share p and scales the rest', () => {
    torch.tidy(() => {
      torch.manualSeed(1);
      const output = F.dropout(torch.ones([20_000], { device }), 0.25, true);
      const kept = output.ne(0).sum().item() / 20_000;
      // Five standard deviations of a binomial share are 0.015.
      expect(Math.abs(kept - 0.75)).toBeLessThan(0.016);
      expectAllClose(output.max(), [4 / 3].at(0) as number);
      expect(output.eq(0).logicalOr(output.gt(1.3)).all().item()).toBe(1);
    });
  });

  it('keeps everything outside of training and drops everything for p = 1', () => {
    torch.tidy(() => {
      const input = torch.randn([50], { device });
      expectAllClose(F.dropout(input, 0.9, false), input, { rtol: 0, atol: 0 });
      expectAllClose(F.dropout(input, 1, true), torch.zeros([50], { device }));
    });
  });

  it('works in place', () => {
    torch.tidy(() => {
      const input = torch.ones([100], { device });
      expect(F.dropout(input, 0.5, true, { inplace: true })).toBe(input);
      expect(input.eq(0).any().item()).toBe(1);
    });
  });
});

describeEachDevice('activations in place', (device) => {
  const functions = {
    relu: (x: torch.Tensor, inplace: boolean) => F.relu(x, { inplace }),
    silu: (x: torch.Tensor, inplace: boolean) => F.silu(x, { inplace }),
    leakyRelu: (x: torch.Tensor, inplace: boolean) => F.leakyRelu(x, 0.2, { inplace }),
    elu: (x: torch.Tensor, inplace: boolean) => F.elu(x, 0.7, { inplace }),
  };
  for (const [name, fn] of Object.entries(functions)) {
    it(name, () => {
      torch.tidy(() => {
        const input = torch.randn([30], { device });
        const expected = fn(input, false);
        expect(expected).not.toBe(input);
        expect(fn(input, true)).toBe(input);
        expectAllClose(input, expected, { rtol: 0, atol: 0 });
      });
    });
  }
});

describeEachDevice('element-wise losses', (device) => {
  it('broadcast with a warning, and gradients come back in the inputs own shapes', () => {
    const warnings: string[] = [];
    const original = process.emitWarning;
    process.emitWarning = ((message: string) => warnings.push(message)) as typeof process.emitWarning;
    try {
      torch.tidy(() => {
        const input = torch.tensor([[1], [2]], { device, requiresGrad: true });
        const target = torch.tensor([0, 1, 5], { device });
        const loss = F.mseLoss(input, target, { reduction: 'sum' });
        expect(loss.item()).toBe(1 + 0 + 16 + 4 + 1 + 9);
        loss.backward();
        // d/dx of the sum over targets of (x - t)² is 2 (3 x - 6).
        expectAllClose(input.grad as torch.Tensor, [[-6], [0]]);
      });
    } finally {
      process.emitWarning = original;
    }
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(/mseLoss.*\[2, 1\].*\[3\]/);
  });
});
