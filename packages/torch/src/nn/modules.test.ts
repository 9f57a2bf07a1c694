import { expect, it } from 'vitest';
import {
  buildModule,
  decode,
  type EncodedTensor,
  loadEncoded,
  readFixture,
} from '../../test/support/fixtures.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, type Tolerance } from '../testing/index.js';

interface ModuleCase {
  kind: string;
  args: unknown[];
  dtype: 'float64' | 'float32' | 'bfloat16';
  seed: number | null;
  training: boolean;
  state: Record<string, EncodedTensor>;
  inputs: EncodedTensor[];
  output: EncodedTensor;
  cotangent: EncodedTensor;
  inputGrads: (EncodedTensor | null)[];
  parameterGrads: Record<string, EncodedTensor | null>;
  stateAfter: Record<string, EncodedTensor> | null;
}

// The same operators on another CPU or a GPU may round differently; a wrong formula is off by far more.
const TOLERANCES: Record<ModuleCase['dtype'], Tolerance> = {
  float64: { rtol: 1e-11, atol: 1e-12 },
  float32: { rtol: 2e-5, atol: 2e-6 },
  bfloat16: { rtol: 1.6e-2, atol: 4e-3 },
};

const cases = readFixture<ModuleCase>('nn-modules.json');

describeEachDevice('modules against PyTorch', (device) => {
  for (const [index, example] of cases.entries()) {
    // A GPU draws other random numbers than the CPU.
    if (example.seed !== null && device !== 'cpu') continue;
    const options = JSON.stringify(example.args, (_, value) => (value?.data ? 'tensor' : value));
    const shapes = example.inputs.map(({ shape }) => `[${shape}]`).join(' ');
    it(`${index} ${example.kind}(${options.slice(1, -1)}) of ${shapes} in ${example.dtype}`, () => {
      const before = torch.memory().tensors;
      torch.tidy(() => run(example, device));
      expect(torch.memory().tensors).toBe(before);
    });
  }
});

function run(example: ModuleCase, device: string): void {
  const { dtype } = example;
  const tolerance = TOLERANCES[dtype];
  const close = (actual: torch.Tensor | null, expected: EncodedTensor | null, what: string) => {
    if (expected === null) {
      expect(actual, what).toBeNull();
      return;
    }
    try {
      expectAllClose(actual as torch.Tensor, decode(expected, device), tolerance);
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`);
    }
  };
  const module = buildModule(example.kind, example.args).to({ dtype, device });
  module.train(example.training);
  loadEncoded(module, example.state);
  const inputs = example.inputs.map((input) => decode(input, device));
  for (const input of inputs) if (/float/.test(input.dtype)) input.requiresGrad = true;

  if (example.seed !== null) torch.manualSeed(example.seed);
  const output = module.call(...inputs) as torch.Tensor;
  close(output, example.output, 'output');

  output.backward(decode(example.cotangent, device));
  example.inputGrads.forEach((grad, i) => {
    close(inputs[i]?.grad ?? null, grad, `gradient of input ${i}`);
  });
  for (const [name, parameter] of module.namedParameters()) {
    close(parameter.grad, example.parameterGrads[name] ?? null, `gradient of ${name}`);
  }
  const state = module.stateDict();
  for (const [name, value] of Object.entries(example.stateAfter ?? {})) {
    close(state[name] ?? null, value, `${name} after forward`);
  }
  module.dispose();
}
