import { expect, it } from 'vitest';
import { decode, type EncodedTensor, loadEncoded, readFixture } from '../../test/support/fixtures.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose } from '../testing/index.js';
import { MultiheadAttention, type MultiheadAttentionOptions } from './index.js';

interface AttentionCase {
  args: [number, number, MultiheadAttentionOptions?];
  dtype: 'float64' | 'float32';
  state: Record<string, EncodedTensor>;
  inputs: [EncodedTensor, EncodedTensor, EncodedTensor];
  masks: { attn_mask?: EncodedTensor; key_padding_mask?: EncodedTensor };
  call: { needWeights?: boolean; isCausal?: boolean; averageAttnWeights?: boolean };
  output: EncodedTensor;
  weights: EncodedTensor | null;
  cotangent: EncodedTensor;
  inputGrads: EncodedTensor[];
  parameterGrads: Record<string, EncodedTensor>;
}

const TOLERANCES = { float64: { rtol: 1e-10, atol: 1e-11 }, float32: { rtol: 1e-4, atol: 1e-5 } };

describeEachDevice('MultiheadAttention against PyTorch', (device) => {
  for (const [index, example] of readFixture<AttentionCase>('nn-attention.json').entries()) {
    const title = JSON.stringify([example.args, example.call, Object.keys(example.masks)]);
    it(`${index} ${title} in ${example.dtype}`, () => {
      const before = torch.memory().tensors;
      torch.tidy(() => run(example, device));
      expect(torch.memory().tensors).toBe(before);
    });
  }

  it('gives the same result for one tensor as query, key and value as for three equal ones', () => {
    torch.tidy(() => {
      torch.manualSeed(0);
      const module = new MultiheadAttention(8, 2, { device, dtype: 'float64' });
      const x = torch.randn([5, 3, 8], { device, dtype: 'float64' });
      const [self] = module.call(x, x, x);
      const [three] = module.call(x, x.clone(), x.clone());
      expectAllClose(self, three, { rtol: 1e-12, atol: 1e-13 });
      module.dispose();
    });
  });

  it('drops attention weights in training mode only', () => {
    torch.tidy(() => {
      torch.manualSeed(0);
      const module = new MultiheadAttention(8, 2, { device, dropout: 0.5 });
      const x = torch.randn([16, 2, 8], { device });
      const [, weights] = module.call(x, x, x, { averageAttnWeights: false });
      const dropped = (weights as torch.Tensor).eq(0).sum().item() / (weights as torch.Tensor).numel();
      expect(dropped).toBeGreaterThan(0.4);
      expect(dropped).toBeLessThan(0.6);
      const [, all] = module.eval().call(x, x, x);
      expectAllClose((all as torch.Tensor).sum(-1), torch.ones([2, 16], { device }));
      module.dispose();
    });
  });
});

function run(example: AttentionCase, device: string): void {
  const { dtype } = example;
  const tolerance = TOLERANCES[dtype];
  const [embedDim, numHeads, options = {}] = example.args;
  const module = new MultiheadAttention(embedDim, numHeads, { ...options, dtype, device });
  loadEncoded(module, example.state);
  const inputs = example.inputs.map((input) => decode(input, device).requiresGrad_());
  const [q, k, v] = inputs as [torch.Tensor, torch.Tensor, torch.Tensor];
  const { attn_mask, key_padding_mask } = example.masks;
  const [output, weights] = module.call(q, k, v, {
    ...example.call,
    attnMask: attn_mask ? decode(attn_mask, device) : null,
    keyPaddingMask: key_padding_mask ? decode(key_padding_mask, device) : null,
  });
  expectAllClose(output, decode(example.output, device), tolerance);
  if (example.weights) {
    expectAllClose(weights as torch.Tensor, decode(example.weights, device), tolerance);
  } else {
    expect(weights).toBeNull();
  }
  output.backward(decode(example.cotangent, device));
  inputs.forEach((input, i) => {
    expectAllClose(
      input.grad as torch.Tensor,
      decode(example.inputGrads[i] as EncodedTensor, device),
      tolerance,
    );
  });
  for (const [name, parameter] of module.namedParameters()) {
    expectAllClose(
      parameter.grad as torch.Tensor,
      decode(example.parameterGrads[name] as EncodedTensor, device),
      tolerance,
    );
  }
  module.dispose();
}
