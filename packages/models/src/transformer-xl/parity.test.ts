import { loadSafetensors, manualSeed } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { describe, expect, it } from 'vitest';
import { fixturePath, loadedModel, optionsOf, readRecording, trainSteps } from '../../test/fixture-runs.js';
import { initializeTransformerXL, TransformerXL } from './index.js';

const recording = readRecording();
const stream = () => loadSafetensors(fixturePath('stream.safetensors')).tensors['stream']!;

/** The largest |a - b| / |b|. */
function worstRelative(actual: readonly number[], expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  return Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!) / Math.abs(expected[i]!)));
}

describe.each(['dense', 'moe'] as const)('the %s model and its PyTorch twin', (kind) => {
  const { config } = recording.cases.find((entry) => entry.kind === kind)!;

  it('have the same state-dict keys and shapes', () => {
    const { tensors } = loadSafetensors(fixturePath(`${kind}-weights.safetensors`));
    const state = new TransformerXL(optionsOf(config)).stateDict();
    const shapes = (dict: typeof state) =>
      Object.fromEntries(Object.entries(dict).map(([key, value]) => [key, value.shape]));
    expect(shapes(state)).toEqual(shapes(tensors));
  });

  it('draw the same initial weights from the same seed', () => {
    const { tensors } = loadSafetensors(fixturePath(`${kind}-weights.safetensors`));
    const model = new TransformerXL(optionsOf(config));
    manualSeed(recording.seed);
    initializeTransformerXL(model);
    for (const [key, value] of Object.entries(model.stateDict())) {
      // Not to the bit: processors with and without AVX2 round the normal distribution differently.
      expectAllClose(value, tensors[key]!, { rtol: 1e-5, atol: 1e-7 });
    }
  });

  const cases = recording.cases.filter((entry) => entry.kind === kind);
  describe.each(cases)('$name', ({ name, config, runs }) => {
    it.each([
      ['float64', 1e-10],
      ['float32', 1e-4],
    ] as const)('has the same losses over 20 steps in %s, to %f', (dtype, tolerance) => {
      const model = loadedModel(config, fixturePath(`${kind}-weights.safetensors`), dtype);
      const routing =
        kind === 'moe'
          ? loadSafetensors(fixturePath('routing.safetensors')).tensors[`${name}/${dtype}`]!
          : undefined;
      const trace = trainSteps(model, {
        stream: stream(),
        steps: recording.steps,
        tgtLen: recording.tgtLen,
        extLen: config.ext_len,
        lr: recording.lr,
        balanceWeight: config.balance_weight,
        // In float32 a token between two near-equal experts may go either way.
        routing: dtype === 'float32' ? routing : undefined,
      });
      const expected = runs[dtype];
      expect(worstRelative(trace.losses, expected.losses)).toBeLessThanOrEqual(tolerance);
      if (kind === 'moe') {
        expect(worstRelative(trace.balance, expected.balance)).toBeLessThanOrEqual(tolerance);
        const recorded = Array.from(routing!.data() as Uint8Array);
        const own = trace.choices.flat(2);
        const flips = own.filter((expert, i) => expert !== recorded[i]).length;
        if (dtype === 'float64') expect(flips).toBe(0);
        else expect(flips / own.length).toBeLessThan(0.01);
      }
      const names = Object.keys(expected.gradNorms);
      expect(Object.keys(trace.gradNorms).sort()).toEqual([...names].sort());
      const norms = (of: Record<string, number>) => names.map((key) => of[key]!);
      // The smallest gradients are sums of canceling terms: looser by the same factor in both dtypes.
      expect(worstRelative(norms(trace.gradNorms), norms(expected.gradNorms))).toBeLessThanOrEqual(
        tolerance * 10,
      );
    });
  });
});
