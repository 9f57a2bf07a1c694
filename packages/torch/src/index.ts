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
export { checkBoolean, checkFunction, checkOptions } from './check.js';
export { cuda, Event, Stream } from './devices/cuda.js';
export { flagOnDevice, raiseDeviceErrors, watchDevice } from './devices/device-errors.js';
export { type BoundOperator, op, type Scalar } from './dispatch/op.js';
export { FmoeError, type FmoeErrorCode, type FmoeErrorDetails } from './errors.js';
export * from './generated/functions.js';
export * as nn from './nn/index.js';
export { Parameter } from './nn/parameter.js';
export * as optim from './optim/index.js';
export {
  getPrintOptions,
  type PrintOptions,
  resetPrintOptions,
  setPrintOptions,
} from './printing/print-options.js';
export { type ProfileOptions, profile } from './profiler.js';
export { Generator } from './random/generator.js';
export { getRngState, initialSeed, manualSeed, setRngState } from './random/random.js';
export { getNumThreads, libtorchVersion, loadLibrary, setNumThreads } from './runtime.js';
export { keep, memory, type Scope, scope, scoped, type TensorStatistics, tidy } from './scope.js';
export * from './serialize/index.js';
export type { NestedArray } from './tensor/data.js';
export { type DType, dtypes, isDType, isFloatingPoint, type TypedArray } from './tensor/dtype.js';
export * from './tensor/factories.js';
export { type Index, type Slice, slice } from './tensor/indexing.js';
export { Tensor, type ToOptions } from './tensor/tensor.js';
