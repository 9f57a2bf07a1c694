export { type AutocastOptions, autocast } from './autocast.js';
export * as autograd from './autograd/index.js';
export {
  AutogradFunction,
  type BackwardOptions,
  backward,
  checkpoint,
  enableGrad,
  FunctionContext,
  type GradOptions,
  grad,
  gradcheck,
  isGradEnabled,
  noGrad,
  setGradEnabled,
} from './autograd/index.js';
export { cuda, Event, Stream } from './cuda.js';
export type { NestedArray } from './data.js';
export { flagOnDevice, raiseDeviceErrors, watchDevice } from './device-errors.js';
export { type DType, dtypes, isDType, isFloatingPoint, type TypedArray } from './dtype.js';
export { FmoeError, type FmoeErrorCode, type FmoeErrorDetails } from './errors.js';
export * from './factories.js';
export * from './generated/functions.js';
export { Generator } from './generator.js';
export { type Index, type Slice, slice } from './indexing.js';
export * as nn from './nn/index.js';
export { Parameter } from './nn/parameter.js';
export { type BoundOperator, op, type Scalar } from './op.js';
export * as optim from './optim/index.js';
export { getPrintOptions, type PrintOptions, resetPrintOptions, setPrintOptions } from './print-options.js';
export { type ProfileOptions, profile } from './profiler.js';
export { getRngState, initialSeed, manualSeed, setRngState } from './random.js';
export { getNumThreads, libtorchVersion, loadLibrary, setNumThreads } from './runtime.js';
export { keep, memory, type Scope, scope, scoped, type TensorStatistics, tidy } from './scope.js';
export * from './serialize/index.js';
export { Tensor, type ToOptions } from './tensor.js';
