import type { Handle, HandleList } from '../native/index.js';
import { keep } from '../scope.js';
import { full, zeros } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { scalingHandles } from './grad-scaling.js';
import { addNumber, handleOperator, subtractAll } from './handle-operator.js';
import { usesMaster } from './master-weights.js';
import { Optimizer } from './optimizer.js';
import type { OptimizerStateDict } from './optimizer-state-dict.js';
import type {
  GradientScaling,
  OptimizerOptions,
  ParameterInput,
  TensorSpec,
  UpdateLists,
} from './optimizer-types.js';
import { checkFlag, checkRange } from './parameter-groups.js';

/** Options of {@link Adagrad}. */
export interface AdagradOptions extends OptimizerOptions {
  /** The rate at step t is `lr / (1 + (t - 1) * lrDecay)`. Default 0. */
  lrDecay: number;
  /** Factor of the weights that is added to the gradient. Default 0. */
  weightDecay: number;
  /** What the sums of squares begin with. Default 0. */
  initialAccumulatorValue: number;
  /** Added to the denominator. Default 1e-10. */
  eps: number;
  /** Go up the gradient. Default false. */
  maximize: boolean;
}

const fusedAdagrad: (
  ...args: [
    targets: HandleList,
    grads: HandleList,
    sums: HandleList,
    steps: HandleList,
    lr: number,
    lrDecay: number,
    weightDecay: number,
    eps: number,
    maximize: boolean,
    gradScale: Handle | null,
    foundInf: Handle | null,
  ]
) => void = handleOperator('aten::_fused_adagrad_');

const keys: readonly string[] = ['step', 'sum'];

const defaults: AdagradOptions = {
  lr: 1e-2,
  lrDecay: 0,
  eps: 1e-10,
  weightDecay: 0,
  initialAccumulatorValue: 0,
  maximize: false,
  masterWeights: false,
};

/**
 * Adagrad (Duchi et al. 2011) on libtorch's fused kernel; the same numbers as `torch.optim.Adagrad`.
 *
 * State: `step` (float32, no dimensions) and `sum` (shape of the parameter).
 */
export class Adagrad extends Optimizer<AdagradOptions> {
  /**
   * @param params tensors, named tensors, or groups with options of their own
   * @param options see {@link AdagradOptions}
   * @throws FmoeError ERR_ARGUMENT for an option out of range or parameters that cannot be optimized
   */
  constructor(params: ParameterInput<AdagradOptions>, options: Partial<AdagradOptions> = {}) {
    super(params, defaults, options);
  }

  override get supportsGradientScaling(): boolean {
    return true;
  }

  protected override checkOptions(options: Readonly<AdagradOptions>): void {
    const { name } = this;
    checkRange(name, 'lrDecay', options.lrDecay);
    checkRange(name, 'weightDecay', options.weightDecay);
    checkRange(name, 'initialAccumulatorValue', options.initialAccumulatorValue);
    checkRange(name, 'eps', options.eps);
    checkFlag(name, 'maximize', options.maximize);
  }

  protected override pytorchGroupKeys(): Readonly<Record<string, unknown>> {
    return { foreach: null, differentiable: false, fused: null };
  }

  protected override stateKeys(): readonly string[] {
    return keys;
  }

  protected override createState(
    key: string,
    { shape, dtype, device }: TensorSpec,
    { initialAccumulatorValue }: Readonly<AdagradOptions>,
  ): Tensor {
    if (key === 'step') return zeros([], { dtype: 'float32', device });
    return full(shape, initialAccumulatorValue, { dtype, device });
  }

  /** As in PyTorch, every parameter has state from the start, also one that was never updated. */
  override stateDict(): OptimizerStateDict {
    for (const group of this.paramGroups) {
      for (const param of group.params) {
        if (this.state.has(param)) continue;
        const dtype = usesMaster(param, group.masterWeights) ? 'float32' : param.dtype;
        const spec = { shape: param.shape, dtype, device: param.device };
        this.state.set(
          param,
          Object.fromEntries(keys.map((key) => [key, keep(this.createState(key, spec, group))])),
        );
      }
    }
    return super.stateDict();
  }

  protected override update(
    lists: UpdateLists,
    options: Readonly<AdagradOptions>,
    scaling: GradientScaling | null,
  ): void {
    const { gradScale, foundInf } = scalingHandles(scaling, lists.device);
    const steps = lists.state['step']!;
    addNumber(steps, 1);
    fusedAdagrad(
      lists.targets,
      lists.grads,
      lists.state['sum']!,
      steps,
      options.lr,
      options.lrDecay,
      options.weightDecay,
      options.eps,
      options.maximize,
      gradScale,
      foundInf,
    );
    // A step that was left out does not count.
    if (foundInf !== null) subtractAll(steps, new Float64Array(steps.length).fill(foundInf));
  }
}
