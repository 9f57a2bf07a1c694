import { manualSeed, memory, tidy } from '@fmoe/torch';
import { describeEachDevice, type TestDevice } from '@fmoe/torch/testing';
import { it } from 'vitest';

/** A property that every plug-in of a kind must have; throws where it is violated. */
export type Check<Context> = (context: Context, device: TestDevice) => void;

/** Registers each check as a test, on every device. */
export function registerChecks<Context>(
  name: string,
  checks: Readonly<Record<string, Check<Context>>>,
  context: Context,
): void {
  describeEachDevice(name, (device) => {
    for (const [title, check] of Object.entries(checks)) {
      it(title, () => runCheck(check, context, device));
    }
  });
}

/** Runs a check from a fixed random state; what it makes is freed. */
export function runCheck<Context>(check: Check<Context>, context: Context, device: TestDevice): void {
  manualSeed(1);
  tidy(() => check(context, device));
}

/** Asserts that ten steps leave as many tensors alive as one. */
export function expectNoLeak(step: () => void): void {
  tidy(step);
  const before = memory().tensors;
  for (let count = 0; count < 10; count++) tidy(step);
  const grown = memory().tensors - before;
  if (grown !== 0) throw new Error(`ten steps left ${grown} tensors behind`);
}

/** Asserts a condition. */
export function expectTrue(condition: boolean, problem: string): asserts condition {
  if (!condition) throw new Error(problem);
}
