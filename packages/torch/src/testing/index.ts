/** Helpers for tests of packages that build on this one; they need vitest. */
export {
  defaultTolerances,
  expectAllClose,
  expectIdentical,
  type NestedNumbers,
  type Tolerance,
} from './all-close.js';
export { describeEachDevice, missingReason, type TestDevice } from './devices.js';
