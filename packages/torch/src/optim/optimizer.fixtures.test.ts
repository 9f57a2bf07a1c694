import { describe, expect, it } from 'vitest';
import {
  makeParams,
  type OptimizerCase,
  optimizerOf,
  readCases,
  type StoredState,
  setGradients,
  toStateDict,
} from '../../test/optim-fixtures.js';
import * as torch from '../index.js';
import { describeEachDevice, expectAllClose, type NestedNumbers, type Tolerance } from '../testing/index.js';

const cases = readCases<OptimizerCase>('optim-optimizers.json');

/**
 * Rounding of single operators against one fused kernel. In float32 each of six steps may round a parameter near 1
 * differently, by 2^-23 = 1.2e-7.
 */
const tolerances: Partial<Record<torch.DType, Required<Tolerance>>> = {
  float64: { rtol: 1e-12, atol: 1e-14 },
  float32: { rtol: 2e-6, atol: 6 * 2 ** -23 },
};

function expectParams(params: torch.Tensor[], expected: NestedNumbers[], tolerance: Tolerance): void {
  params.forEach((param, i) => {
    expectAllClose(param, expected[i]!, tolerance);
  });
}

function expectState(
  actual: torch.optim.OptimizerStateDict,
  stored: StoredState,
  tolerance: Tolerance,
): void {
  expect(Object.keys(actual.state)).toEqual(Object.keys(stored.state));
  for (const [id, own] of Object.entries(stored.state)) {
    expect(Object.keys(actual.state[id]!).sort()).toEqual(Object.keys(own).sort());
    for (const [key, { values, dtype }] of Object.entries(own)) {
      const tensor = actual.state[id]![key] as torch.Tensor;
      expect(tensor.dtype).toBe(dtype);
      expectAllClose(tensor, values, tolerance);
    }
  }
}

/** The groups of a state dict but for the choice of an implementation, which is each side's own. */
function groupsOf({ param_groups: groups }: { param_groups: torch.optim.GroupStateDict[] }): unknown[] {
  return groups.map(({ foreach: _foreach, ...rest }) => rest);
}

describeEachDevice('optimizers equal torch.optim', (device) => {
  it.each(cases)('$optimizer $dtype: $title', (fixture) => {
    const tolerance = tolerances[fixture.dtype]!;
    torch.tidy(() => {
      const params = makeParams(fixture, device);
      const optimizer = optimizerOf(fixture, params);
      let checked = 0;
      for (let step = 0; step < 6; step++) {
        setGradients(fixture, params, step);
        optimizer.step();
        if (step === 0 || step === 2 || step === 5)
          expectParams(params, fixture.paramsAfter[checked++]!, tolerance);
        if (step === 2) expectState(optimizer.stateDict(), fixture.stateAfter3, tolerance);
      }
      const state = optimizer.stateDict();
      expectState(state, fixture.stateAfter6, tolerance);
      expect(groupsOf(state)).toEqual(groupsOf(fixture.stateAfter6));
      optimizer.dispose();
    });
  });

  it.each(cases)("goes on from PyTorch's state: $optimizer $dtype: $title", (fixture) => {
    const tolerance = tolerances[fixture.dtype]!;
    torch.tidy(() => {
      const params = fixture.paramsAfter[1]!.map((values) =>
        torch.tensor(values, { dtype: fixture.dtype, device, requiresGrad: true }),
      );
      // Other options than those saved: all must come from the state.
      const groups = params.map((param) => [param]);
      const optimizer = optimizerOf(
        { ...fixture, options: { lr: 123 }, groups: fixture.groups && groups.map(() => ({})) },
        params,
      );
      optimizer.loadStateDict(toStateDict(fixture.stateAfter3));
      for (let step = 3; step < 6; step++) {
        setGradients(fixture, params, step);
        optimizer.step();
      }
      expectParams(params, fixture.paramsAfter[2]!, tolerance);
      expectState(optimizer.stateDict(), fixture.stateAfter6, tolerance);
      expect(groupsOf(optimizer.stateDict())).toEqual(groupsOf(fixture.stateAfter6));
      optimizer.dispose();
    });
  });
});

describe('fixtures', () => {
  it('cover every optimizer in both dtypes', () => {
    const kinds = new Set(cases.map(({ optimizer, dtype }) => `${optimizer} ${dtype}`));
    expect(kinds.size).toBe(8);
    expect(cases.length).toBeGreaterThan(40);
  });
});
