import { enableGrad, noGrad } from '../autograd/index.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { tidy } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { guarded, handlesOf } from '../tensor/tensor-base.js';
import { gradientLists } from './gradients.js';
import { zeroAll } from './handle-operator.js';
import { refreshMasters } from './master-weights.js';
import type { OptimizerStateDict } from './optimizer-state-dict.js';
import { loadOptimizerState, packOptimizerState } from './optimizer-state-dict.js';
import type {
  GradientScaling,
  OptimizerOptions,
  ParameterGroup,
  ParameterGroupInput,
  ParameterInput,
  ParameterState,
  TensorSpec,
  UpdateLists,
} from './optimizer-types.js';
import { makeBatches, type ParameterBatch } from './parameter-batch.js';
import {
  checkDistinct,
  checkFlag,
  checkRange,
  mergeOptions,
  optimizerError,
  readParameters,
  toGroups,
} from './parameter-groups.js';

/**
 * Base of the optimizers: parameter groups, state for each parameter, and steps that update all parameters of one dtype
 * and device in one operator call.
 *
 * A subclass says which state it keeps ({@link stateKeys}, {@link createState}) and how lists of tensors are updated
 * ({@link update}). State tensors belong to no scope; they live as long as the optimizer.
 */
export abstract class Optimizer<Options extends OptimizerOptions = OptimizerOptions> {
  /** Change options here between steps, e.g. `optimizer.paramGroups[0].lr = 1e-4`. */
  readonly paramGroups: ParameterGroup<Options>[] = [];
  /** State tensors of the parameters that were updated at least once. */
  readonly state = new Map<Tensor, ParameterState>();
  /** Options of groups that do not give their own. */
  readonly defaults: Readonly<Options>;
  #batches: ParameterBatch[][] | undefined;

  /**
   * @param params tensors, named tensors, or groups
   * @param defaults every option of the optimizer with its default
   * @param options what the user gave
   * @throws FmoeError ERR_ARGUMENT for an empty list, a parameter that is no leaf tensor or occurs twice, and an option
   *   that is unknown or out of range; ERR_DTYPE for a parameter that is not floating point
   */
  constructor(params: ParameterInput<Options>, defaults: Options, options: Partial<Options>) {
    this.defaults = mergeOptions(this.name, defaults, options);
    this.checkAllOptions(this.defaults);
    for (const group of toGroups(this.name, params)) this.addParamGroup(group);
  }

  /** The class's name, for messages. */
  protected get name(): string {
    return this.constructor.name;
  }

  /** Throws ERR_ARGUMENT for an option out of range. */
  protected abstract checkOptions(options: Readonly<Options>): void;

  /** Names of the state tensors that these options need. */
  protected abstract stateKeys(options: Readonly<Options>): readonly string[];

  /** A new state tensor for what is updated: of the shape, dtype and device of `prototype`, dense and row-major. */
  protected abstract createState(key: string, prototype: TensorSpec, options: Readonly<Options>): Tensor;

  /** Updates `lists.targets` in place. Runs with gradients off, in a scope. */
  protected abstract update(
    lists: UpdateLists,
    options: Readonly<Options>,
    scaling: GradientScaling | null,
  ): void;

  /** Keys that PyTorch has in its parameter groups and this optimizer has no option for. */
  protected pytorchGroupKeys(): Readonly<Record<string, unknown>> {
    return {};
  }

  /**
   * Whether {@link update} takes `scaling` into account. If not, a gradient scaler divides the gradients itself and reads on
   * the host whether to step.
   */
  get supportsGradientScaling(): boolean {
    return false;
  }

  /** @internal Throws ERR_ARGUMENT for any option out of range. */
  checkAllOptions(options: Readonly<Options>): void {
    checkRange(this.name, 'lr', options.lr);
    checkFlag(this.name, 'masterWeights', options.masterWeights);
    this.checkOptions(options);
  }

  /**
   * Adds parameters with options of their own, e.g. layers that are unfrozen while training.
   *
   * @throws FmoeError as the constructor
   */
  addParamGroup(group: ParameterGroupInput<Options>): void {
    const { params, ...given } = group;
    const options = mergeOptions(this.name, this.defaults, given as unknown as Partial<Options>);
    this.checkAllOptions(options);
    const parameters = readParameters(this.name, params);
    checkDistinct(this.name, this.paramGroups, parameters.params);
    const others = this.paramGroups[0];
    if (others && (others.paramNames === undefined) !== (parameters.paramNames === undefined)) {
      throw optimizerError(this.name, 'params', 'either all groups have parameter names, or none.');
    }
    this.paramGroups.push({ ...options, ...parameters });
    this.#batches = undefined;
  }

  /** Updates every parameter that has a gradient. */
  step(): undefined;
  /**
   * Updates every parameter that has a gradient.
   *
   * @param closure computes the loss anew with gradients on, before the update
   * @returns what the closure returned
   */
  step<Loss>(closure: () => Loss): Loss;
  step<Loss>(closure?: () => Loss): Loss | undefined {
    const loss = closure && enableGrad(closure);
    this.#run(null);
    return loss;
  }

  /** @internal A step that divides by a scale and does nothing where a gradient is not finite; for GradScaler. */
  stepScaled(scaling: GradientScaling): void {
    this.#run(scaling);
  }

  /** Whether a scaled step must be left out by the host. */
  protected skipsStep(_scaling: GradientScaling): boolean {
    return false;
  }

  /**
   * Forgets the gradients.
   *
   * @param options.setToNone drop the tensors (default), or fill them with zeros
   */
  zeroGrad(options: { setToNone?: boolean } = {}): void {
    const { setToNone = true } = options;
    const params = this.paramGroups.flatMap((group) => group.params);
    if (setToNone) {
      guarded('zeroGrad', () => native().clearGradients(handlesOf(params)));
      return;
    }
    noGrad(() => {
      tidy(() => {
        for (const { grads } of gradientLists(params)) zeroAll(grads);
      });
    });
  }

  /**
   * The state and the options in the layout of PyTorch's `state_dict()`: `{ state: { index: { exp_avg, ... } },
   * param_groups: [{ lr, ..., params: [index, ...] }] }`, under the same keys. Tensors are not copied.
   */
  stateDict(): OptimizerStateDict {
    return packOptimizerState(this, this.pytorchGroupKeys());
  }

  /**
   * Takes over options and state of an optimizer of the same kind with the same groups, from here or from PyTorch. Tensors
   * are copied, and brought to the dtype and device of their parameter.
   *
   * @throws FmoeError ERR_STATE_DICT when groups, names or shapes differ; nothing has changed then
   */
  loadStateDict(stateDict: OptimizerStateDict): void {
    loadOptimizerState(this, stateDict, (options) => this.stateKeys(options as Options));
    this.#batches = undefined;
  }

  /** Reads the float32 masters from the parameters again, after these were changed from outside, e.g. loaded. */
  refreshMasterWeights(): void {
    noGrad(() => refreshMasters(this.state));
  }

  /** Frees the state tensors. */
  dispose(): void {
    for (const state of this.state.values()) for (const tensor of Object.values(state)) tensor.dispose();
    this.state.clear();
    this.#batches = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #allBatches(): ParameterBatch[][] {
    this.#batches ??= this.paramGroups.map(({ params, masterWeights }) => makeBatches(params, masterWeights));
    return this.#batches;
  }

  #run(scaling: GradientScaling | null): void {
    if (scaling && this.skipsStep(scaling)) return;
    const batches = this.#allBatches();
    noGrad(() => {
      tidy(() => {
        this.paramGroups.forEach((options, i) => {
          const source = {
            state: this.state,
            keys: this.stateKeys(options),
            create: (key: string, prototype: TensorSpec) => this.createState(key, prototype, options),
          };
          const update = (lists: UpdateLists): void => this.#update(lists, options, scaling);
          for (const batch of batches[i]!) batch.step(source, update);
        });
      });
    });
  }

  #update(lists: UpdateLists, options: Readonly<Options>, scaling: GradientScaling | null): void {
    try {
      this.update(lists, options, scaling);
    } catch (error) {
      if (!FmoeError.isInstance(error) || (error.code !== 'ERR_DTYPE' && error.code !== 'ERR_DEVICE'))
        throw error;
      const remedy =
        "If the model changed its dtype or device after the first step, load this optimizer's stateDict() into a new optimizer.";
      throw new FmoeError(
        error.code,
        `${this.name}: parameters, gradients and state do not fit: ${error.message}. ${remedy}`,
        {
          op: this.name,
          cause: error,
        },
      );
    }
  }
}
