export {
  type BackwardOptions,
  backward,
  type GradientHook,
  type GradOptions,
  grad,
  type HookHandle,
} from './backward.js';
export { checkpoint } from './checkpoint.js';
export {
  AutogradFunction,
  AutogradFunction as Function,
  FunctionContext,
  type Gradients,
} from './function.js';
export { enableGrad, isGradEnabled, noGrad, setGradEnabled } from './grad-mode.js';
export { type GradcheckOptions, gradcheck } from './gradcheck.js';
