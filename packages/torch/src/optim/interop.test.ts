import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { makeOptimizer } from '../../test/optim-fixtures.js';
import { missingPython, runPython } from '../../test/python.js';
import * as torch from '../index.js';
import { describeUnless, expectAllClose } from '../testing/index.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'fmoe-optim-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** State tensors as `state.<index>.<key>`. */
function flatten({ state }: torch.optim.OptimizerStateDict): Record<string, torch.Tensor> {
  const entries = Object.entries(state).flatMap(([id, own]) =>
    Object.entries(own).map(([key, value]) => [`state.${id}.${key}`, value as torch.Tensor] as const),
  );
  return Object.fromEntries(entries);
}

describeUnless(missingPython, "PyTorch goes on from this package's state", () => {
  it.each([
    ['SGD', { lr: 0.1, momentum: 0.9, dampening: 0.2, weight_decay: 0.01 }],
    ['Adam', { lr: 0.05, amsgrad: true }],
    ['AdamW', { lr: 0.05, betas: [0.8, 0.9] }],
    ['Adagrad', { lr: 0.1, lr_decay: 0.1, initial_accumulator_value: 0.2 }],
  ] as const)('%s', (name, options) => {
    torch.tidy(() => {
      torch.manualSeed(1);
      const draw = (): torch.Tensor[] => [torch.randn([3, 4]), torch.randn([5])].map((x) => x.double());
      const params = draw().map((x) => x.detach().requiresGrad_());
      const grads = Array.from({ length: 6 }, draw);
      const optimizer = makeOptimizer(
        name,
        params.map((param, i) => ({ params: [param], ...(i === 1 && { lr: 0.02 }) })),
        options,
      );
      const step = (s: number): void => {
        params.forEach((param, i) => {
          param.grad = grads[s]![i]!.clone();
        });
        optimizer.step();
      };
      for (let s = 0; s < 3; s++) step(s);
      const file: Record<string, torch.Tensor> = flatten(optimizer.stateDict());
      params.forEach((param, i) => {
        file[`param.${i}`] = param;
        for (let s = 3; s < 6; s++) file[`grad.${s - 3}.${i}`] = grads[s]![i]!;
      });
      const [source, target] = [join(folder, `${name}.in`), join(folder, `${name}.out`)];
      torch.saveSafetensors(source, file, {
        optimizer: name,
        steps: '3',
        param_groups: JSON.stringify(optimizer.stateDict().param_groups),
      });
      runPython('interop/continue_optimizer.py', [source, target]);
      for (let s = 3; s < 6; s++) step(s);
      const { tensors } = torch.loadSafetensors(target);
      const expected = { ...flatten(optimizer.stateDict()), 'param.0': params[0]!, 'param.1': params[1]! };
      expect(Object.keys(tensors).sort()).toEqual(Object.keys(expected).sort());
      for (const [key, value] of Object.entries(expected))
        expectAllClose(tensors[key]!, value, { rtol: 1e-12, atol: 1e-14 });
      optimizer.dispose();
    });
  });
});
