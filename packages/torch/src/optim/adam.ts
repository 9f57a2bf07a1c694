import type { Handle, HandleList } from '../native/index.js';
import { zeros } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { scalingHandles } from './grad-scaling.js';
import { addNumber, handleOperator, subtractAll } from './handle-operator.js';
import { Optimizer } from './optimizer.js';
import type {
  GradientScaling,
  OptimizerOptions,
  ParameterInput,
  TensorSpec,
  UpdateLists,
} from './optimizer-types.js';
import { checkFlag, checkRange, optimizerError } from './parameter-groups.js';

/** Options of {@link Adam} and {@link AdamW}. */
export interface AdamOptions extends OptimizerOptions {
  /** Decay rates of the averages of the gradient and of its square, each in [0, 1). Default [0.9, 0.999]. */
  betas: readonly [number, number];
  /** Added to the denominator. Default 1e-8. */
  eps: number;
  /** Factor of the weights that is added to the gradient, or (decoupled) taken from the weights. */
  weightDecay: number;
  /** Use the largest squared average so far (Reddi et al. 2018). Default false. */
  amsgrad: boolean;
  /** Go up the gradient. Default false. */
  maximize: boolean;
  /** Take weight decay from the weights instead of adding it to the gradient (Loshchilov and Hutter 2019). */
  decoupledWeightDecay: boolean;
}

type FusedAdam = (
  ...args: [
    targets: HandleList,
    grads: HandleList,
    expAvgs: HandleList,
    expAvgSqs: HandleList,
    maxExpAvgSqs: HandleList,
    steps: HandleList,
    lr: number,
    beta1: number,
    beta2: number,
    weightDecay: number,
    eps: number,
    amsgrad: boolean,
    maximize: boolean,
    gradScale: Handle | null,
    foundInf: Handle | null,
  ]
) => void;

const fusedAdam: FusedAdam = handleOperator('aten::_fused_adam_');
const fusedAdamW: FusedAdam = handleOperator('aten::_fused_adamw_');
const none: HandleList = new Float64Array(0);
const averages = ['step', 'exp_avg', 'exp_avg_sq'];
const averagesAndMaximum = [...averages, 'max_exp_avg_sq'];

const defaults: AdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  amsgrad: false,
  maximize: false,
  decoupledWeightDecay: false,
  masterWeights: false,
};

/**
 * Adam (Kingma and Ba 2015) on libtorch's fused kernel; the same numbers as `torch.optim.Adam`.
 *
 * State: `step` (float32, no dimensions), `exp_avg`, `exp_avg_sq` and with `amsgrad` `max_exp_avg_sq` (shape of the
 * parameter).
 */
export class Adam extends Optimizer<AdamOptions> {
  /**
   * @param params tensors, named tensors, or groups with options of their own
   * @param options see {@link AdamOptions}
   * @throws FmoeError ERR_ARGUMENT for an option out of range or parameters that cannot be optimized
   */
  constructor(
    params: ParameterInput<AdamOptions>,
    options: Partial<AdamOptions> = {},
    base: AdamOptions = defaults,
  ) {
    super(params, base, options);
  }

  override get supportsGradientScaling(): boolean {
    return true;
  }

  protected override checkOptions(options: Readonly<AdamOptions>): void {
    const { name } = this;
    const { betas } = options;
    if (!Array.isArray(betas) || betas.length !== 2) {
      throw optimizerError(name, 'betas', `betas is ${String(betas)}, expected two numbers.`);
    }
    checkRange(name, 'betas[0]', betas[0], { below: 1 });
    checkRange(name, 'betas[1]', betas[1], { below: 1 });
    checkRange(name, 'eps', options.eps);
    checkRange(name, 'weightDecay', options.weightDecay);
    checkFlag(name, 'amsgrad', options.amsgrad);
    checkFlag(name, 'maximize', options.maximize);
    checkFlag(name, 'decoupledWeightDecay', options.decoupledWeightDecay);
  }

  protected override pytorchGroupKeys(): Readonly<Record<string, unknown>> {
    return { foreach: null, capturable: false, differentiable: false, fused: null };
  }

  protected override stateKeys({ amsgrad }: Readonly<AdamOptions>): readonly string[] {
    return amsgrad ? averagesAndMaximum : averages;
  }

  protected override createState(key: string, { shape, dtype, device }: TensorSpec): Tensor {
    return key === 'step' ? zeros([], { dtype: 'float32', device }) : zeros(shape, { dtype, device });
  }

  protected override update(
    lists: UpdateLists,
    options: Readonly<AdamOptions>,
    scaling: GradientScaling | null,
  ): void {
    const { targets, grads, state } = lists;
    const { gradScale, foundInf } = scalingHandles(scaling, lists.device);
    const steps = state['step']!;
    const fused = options.decoupledWeightDecay ? fusedAdamW : fusedAdam;
    addNumber(steps, 1);
    fused(
      targets,
      grads,
      state['exp_avg']!,
      state['exp_avg_sq']!,
      options.amsgrad ? state['max_exp_avg_sq']! : none,
      steps,
      options.lr,
      options.betas[0],
      options.betas[1],
      options.weightDecay,
      options.eps,
      options.amsgrad,
      options.maximize,
      gradScale,
      foundInf,
    );
    // A step that was left out does not count.
    if (foundInf !== null) subtractAll(steps, new Float64Array(steps.length).fill(foundInf));
  }
}

const decoupledDefaults: AdamOptions = { ...defaults, weightDecay: 1e-2, decoupledWeightDecay: true };

/** Adam with weight decay taken from the weights (Loshchilov and Hutter 2019), 0.01 by default; as `torch.optim.AdamW`. */
export class AdamW extends Adam {
  /**
   * @param params tensors, named tensors, or groups with options of their own
   * @param options see {@link AdamOptions}
   * @throws FmoeError ERR_ARGUMENT for an option out of range or parameters that cannot be optimized
   */
  constructor(params: ParameterInput<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, options, decoupledDefaults);
  }
}
