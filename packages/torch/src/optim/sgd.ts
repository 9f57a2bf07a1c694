import type { Handle, HandleList } from '../native/index.js';
import { zeros } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { scalingHandles } from './grad-scaling.js';
import { handleOperator } from './handle-operator.js';
import { Optimizer } from './optimizer.js';
import type {
  GradientScaling,
  OptimizerOptions,
  ParameterInput,
  TensorSpec,
  UpdateLists,
} from './optimizer-types.js';
import { checkFlag, checkRange, optimizerError } from './parameter-groups.js';

/** Options of {@link SGD}. */
export interface SGDOptions extends OptimizerOptions {
  /** Factor of the step before that is added to this one. Default 0. */
  momentum: number;
  /** Share of the gradient that momentum leaves out. Default 0. */
  dampening: number;
  /** Factor of the weights that is added to the gradient. Default 0. */
  weightDecay: number;
  /** Nesterov's momentum; needs `momentum` above 0 and no dampening. Default false. */
  nesterov: boolean;
  /** Go up the gradient. Default false. */
  maximize: boolean;
}

const fusedSgd: (
  ...args: [
    targets: HandleList,
    grads: HandleList,
    momentumBuffers: HandleList,
    weightDecay: number,
    momentum: number,
    lr: number,
    dampening: number,
    nesterov: boolean,
    maximize: boolean,
    isFirstStep: boolean,
    gradScale: Handle | null,
    foundInf: Handle | null,
  ]
) => void = handleOperator('aten::_fused_sgd_');

const none: HandleList = new Float64Array(0);
const noState: readonly string[] = [];
const momentumState: readonly string[] = ['momentum_buffer'];

const defaults: SGDOptions = {
  lr: 1e-3,
  momentum: 0,
  dampening: 0,
  weightDecay: 0,
  nesterov: false,
  maximize: false,
  masterWeights: false,
};

/**
 * Stochastic gradient descent, with momentum (Sutskever et al. 2013) if wished, on libtorch's fused kernel; the same numbers
 * as `torch.optim.SGD`.
 *
 * State: with momentum, `momentum_buffer` (shape of the parameter).
 */
export class SGD extends Optimizer<SGDOptions> {
  /**
   * @param params tensors, named tensors, or groups with options of their own
   * @param options see {@link SGDOptions}
   * @throws FmoeError ERR_ARGUMENT for an option out of range or parameters that cannot be optimized
   */
  constructor(params: ParameterInput<SGDOptions>, options: Partial<SGDOptions> = {}) {
    super(params, defaults, options);
  }

  override get supportsGradientScaling(): boolean {
    return true;
  }

  protected override checkOptions(options: Readonly<SGDOptions>): void {
    const { name } = this;
    checkRange(name, 'momentum', options.momentum);
    checkRange(name, 'dampening', options.dampening, { minimum: Number.NEGATIVE_INFINITY });
    checkRange(name, 'weightDecay', options.weightDecay);
    checkFlag(name, 'nesterov', options.nesterov);
    checkFlag(name, 'maximize', options.maximize);
    if (options.nesterov && (options.momentum <= 0 || options.dampening !== 0)) {
      throw optimizerError(name, 'nesterov', 'nesterov needs a momentum above 0 and a dampening of 0.');
    }
  }

  protected override pytorchGroupKeys(): Readonly<Record<string, unknown>> {
    return { foreach: null, differentiable: false, fused: null };
  }

  protected override stateKeys({ momentum }: Readonly<SGDOptions>): readonly string[] {
    return momentum === 0 ? noState : momentumState;
  }

  protected override createState(_key: string, { shape, dtype, device }: TensorSpec): Tensor {
    return zeros(shape, { dtype, device });
  }

  protected override update(
    lists: UpdateLists,
    options: Readonly<SGDOptions>,
    scaling: GradientScaling | null,
  ): void {
    const { gradScale, foundInf } = scalingHandles(scaling, lists.device);
    fusedSgd(
      lists.targets,
      lists.grads,
      lists.state['momentum_buffer'] ?? none,
      options.weightDecay,
      options.momentum,
      options.lr,
      options.dampening,
      options.nesterov,
      options.maximize,
      // The first step takes the whole gradient. Without dampening a buffer of zeros leads to the same.
      lists.isFirstStep && options.dampening !== 0,
      gradScale,
      foundInf,
    );
  }

  /**
   * With dampening a first step that the kernel leaves out would still count as the first, so it must not be begun. Only
   * then the flag is read on the host.
   */
  protected override skipsStep(scaling: GradientScaling): boolean {
    const mayBeFirst = this.paramGroups.some(
      ({ momentum, dampening, params }) =>
        momentum !== 0 &&
        dampening !== 0 &&
        params.some((param) => !this.state.get(param)?.['momentum_buffer']),
    );
    return mayBeFirst && scaling.foundInf.item() !== 0;
  }
}
