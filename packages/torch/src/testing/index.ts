/** Helpers for tests of packages that build on this one; they need vitest. */
export {
  defaultTolerances,
  expectAllClose,
  expectIdentical,
  type NestedNumbers,
  type Tolerance,
} from './all-close.js';
export { collectGarbage } from './collect-garbage.js';
export { describeEachDevice, describeUnless, missingReason, type TestDevice } from './devices.js';
