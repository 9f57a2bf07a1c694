export {
  backward,
  type BackwardOptions,
  grad,
  type GradientHook,
  type GradOptions,
  type HookHandle,
} from './backward.js';
export { checkpoint } from './checkpoint.js';
export { AutogradFunction, AutogradFunction as Function, FunctionContext, type Gradients } from './function.js';
export { enableGrad, isGradEnabled, noGrad, setGradEnabled } from './grad-mode.js';
export { gradcheck, type GradcheckOptions } from './gradcheck.js';
