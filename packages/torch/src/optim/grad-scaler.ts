import { noGrad } from '../autograd/index.js';
import { op } from '../dispatch/op.js';
import { FmoeError } from '../errors.js';
import type { HandleList } from '../native/index.js';
import { keep, tidy } from '../scope.js';
import { full } from '../tensor/factories.js';
import { Tensor } from '../tensor/tensor.js';
import { gradientLists } from './gradients.js';
import { handleOperator } from './handle-operator.js';
import type { Optimizer } from './optimizer.js';
import { checkFlag, checkRange, optimizerError } from './parameter-groups.js';

/** Options of {@link GradScaler}. */
export interface GradScalerOptions {
  /** The first scale. Default 65536. */
  initScale?: number;
  /** The scale's factor after `growthInterval` good steps, above 1. Default 2. */
  growthFactor?: number;
  /** The scale's factor after a step with a gradient that is not finite, in (0, 1). Default 0.5. */
  backoffFactor?: number;
  /** Good steps in a row until the scale grows. Default 2000. */
  growthInterval?: number;
  /** With false every method does nothing but pass on. Default true. */
  enabled?: boolean;
}

/** State of a scaler under PyTorch's keys; empty when it is disabled. */
export interface GradScalerState {
  scale?: number;
  growth_factor?: number;
  backoff_factor?: number;
  growth_interval?: number;
  _growth_tracker?: number;
}

type Stage = 'ready' | 'unscaled' | 'stepped';

interface OptimizerProgress {
  stage: Stage;
  /** 1 where a gradient is not finite, else 0; null until the gradients were looked at. */
  foundInf: Tensor | null;
}

const checkAndUnscale: (...args: [grads: HandleList, foundInf: number, inverseScale: number]) => void =
  handleOperator('aten::_amp_foreach_non_finite_check_and_unscale_');

const NAME = 'GradScaler';

/**
 * Scales the loss up before the backward pass, so that small float16 gradients do not vanish, and the gradients down again
 * before the step; skips steps with gradients that are not finite and adapts the scale. Behaves as `torch.amp.GradScaler`.
 *
 * With the optimizers of this package nothing is read on the host: the kernels do the division and the skipping.
 *
 * @example
 * ```ts
 * scaler.scale(loss).backward();
 * scaler.unscale_(optimizer); // only to look at or clip the gradients
 * clipGradNorm_(model.parameters(), 1);
 * scaler.step(optimizer);
 * scaler.update();
 * ```
 */
export class GradScaler {
  readonly enabled: boolean;
  growthFactor: number;
  backoffFactor: number;
  growthInterval: number;
  #initialScale: number;
  #initialTracker = 0;
  /** float32 without dimensions, on the device of the first scaled tensor. */
  #scale: Tensor | undefined;
  /** int32 without dimensions: good steps since the scale last changed. */
  #growthTracker: Tensor | undefined;
  readonly #progress = new Map<Optimizer, OptimizerProgress>();

  /** @throws FmoeError ERR_ARGUMENT for an option out of range */
  constructor({
    initScale = 2 ** 16,
    growthFactor = 2,
    backoffFactor = 0.5,
    growthInterval = 2000,
    enabled = true,
  }: GradScalerOptions = {}) {
    checkFlag(NAME, 'enabled', enabled);
    checkScalerValues(initScale, growthFactor, backoffFactor, growthInterval);
    this.enabled = enabled;
    this.growthFactor = growthFactor;
    this.backoffFactor = backoffFactor;
    this.growthInterval = growthInterval;
    this.#initialScale = initScale;
  }

  /**
   * Multiplies a loss by the scale.
   *
   * @param output a tensor, or an array of tensors; the result has the same form
   */
  scale(output: Tensor): Tensor;
  scale(output: readonly Tensor[]): Tensor[];
  scale(output: Tensor | readonly Tensor[]): Tensor | Tensor[] {
    if (!this.enabled) return output instanceof Tensor ? output : [...output];
    if (!(output instanceof Tensor)) return output.map((item) => this.scale(item));
    const { device } = output;
    this.#scale ??= keep(full([], this.#initialScale, { device }));
    this.#growthTracker ??= keep(full([], this.#initialTracker, { dtype: 'int32', device }));
    return tidy(() => output.mul(this.#scale!.to(device)));
  }

  /**
   * Divides the gradients of an optimizer's parameters by the scale, to look at or clip them before {@link step}.
   *
   * @throws FmoeError ERR_ARGUMENT when it was called before in this iteration, after `step`, or before any `scale`;
   *   ERR_DTYPE for float16 gradients, which would vanish in float16
   */
  unscale_(optimizer: Optimizer): void {
    if (!this.enabled) return;
    const scale = this.#begun('unscale_').scale;
    const progress = this.#progressOf(optimizer);
    if (progress.stage !== 'ready') {
      const what = progress.stage === 'unscaled' ? 'was called already' : 'must come before step()';
      throw optimizerError(
        NAME,
        'optimizer',
        `unscale_() ${what} in this iteration; update() begins the next.`,
      );
    }
    const inverse = keep(tidy(() => scale.double().reciprocal().float()));
    try {
      progress.foundInf = this.#checkGradients(optimizer, inverse, true);
    } finally {
      inverse.dispose();
    }
    progress.stage = 'unscaled';
  }

  /**
   * Steps the optimizer with unscaled gradients, unless one of them is not finite. The gradients need not be unscaled before.
   *
   * @throws FmoeError ERR_ARGUMENT when it was called before in this iteration, or before any `scale`
   */
  step(optimizer: Optimizer): void {
    if (!this.enabled) {
      optimizer.step();
      return;
    }
    const { scale } = this.#begun('step');
    const progress = this.#progressOf(optimizer);
    if (progress.stage === 'stepped') {
      throw optimizerError(
        NAME,
        'optimizer',
        'step() was called already in this iteration; update() begins the next.',
      );
    }
    if (optimizer.supportsGradientScaling) {
      progress.foundInf ??= this.#checkGradients(optimizer, null, false);
      const gradScale = progress.stage === 'unscaled' ? null : scale;
      optimizer.stepScaled({ gradScale, foundInf: progress.foundInf });
    } else {
      if (progress.stage === 'ready') this.unscale_(optimizer);
      if (progress.foundInf?.item() === 0) optimizer.step();
    }
    progress.stage = 'stepped';
  }

  /**
   * Ends the iteration: lowers the scale if a step was skipped, raises it after `growthInterval` good steps.
   *
   * @param newScale sets the scale to this instead
   * @throws FmoeError ERR_ARGUMENT when no optimizer was stepped or unscaled since the last call
   */
  update(newScale?: number): void {
    if (!this.enabled) return;
    const { scale, growthTracker } = this.#begun('update');
    if (newScale !== undefined) {
      checkRange(NAME, 'newScale', newScale, { minimum: Number.MIN_VALUE });
      scale.fill_(newScale);
    } else {
      const found = [...this.#progress.values()].flatMap(({ foundInf }) => foundInf ?? []);
      if (found.length === 0) {
        throw optimizerError(
          NAME,
          'newScale',
          'update() without a step: call step(optimizer) or unscale_(optimizer) first.',
        );
      }
      noGrad(() => {
        tidy(() => {
          const any = found.map((flag) => flag.to(scale.device)).reduce((a, b) => a.maximum(b));
          const { growthFactor, backoffFactor, growthInterval } = this;
          op('aten::_amp_update_scale_')(
            scale,
            growthTracker,
            any,
            growthFactor,
            backoffFactor,
            growthInterval,
          );
        });
      });
    }
    for (const { foundInf } of this.#progress.values()) foundInf?.dispose();
    this.#progress.clear();
  }

  /** The scale now; 1 when disabled. Waits for the device. */
  getScale(): number {
    if (!this.enabled) return 1;
    return this.#scale?.item() ?? this.#initialScale;
  }

  /** The state under PyTorch's keys. Call it after {@link update}. Waits for the device. */
  stateDict(): GradScalerState {
    if (!this.enabled) return {};
    return {
      scale: this.getScale(),
      growth_factor: this.growthFactor,
      backoff_factor: this.backoffFactor,
      growth_interval: this.growthInterval,
      _growth_tracker: this.#growthTracker?.item() ?? this.#initialTracker,
    };
  }

  /**
   * Takes over a state, from here or from PyTorch. Does nothing when disabled.
   *
   * @throws FmoeError ERR_STATE_DICT when a value is missing or out of range
   */
  loadStateDict(state: GradScalerState): void {
    if (!this.enabled) return;
    const { scale, growth_factor: growth, backoff_factor: backoff, growth_interval: interval } = state;
    const tracker = state._growth_tracker;
    try {
      checkScalerValues(scale, growth, backoff, interval);
      checkRange(NAME, '_growth_tracker', tracker);
    } catch (error) {
      const message = `${NAME}.loadStateDict: ${(error as Error).message} A disabled scaler's state is empty.`;
      throw new FmoeError('ERR_STATE_DICT', message, { op: NAME, argument: 'state', cause: error });
    }
    this.growthFactor = growth!;
    this.backoffFactor = backoff!;
    this.growthInterval = interval!;
    this.#initialScale = scale!;
    this.#initialTracker = tracker!;
    this.#scale?.fill_(scale!);
    this.#growthTracker?.fill_(tracker!);
  }

  /** Frees the scaler's tensors. */
  dispose(): void {
    this.#scale?.dispose();
    this.#growthTracker?.dispose();
    for (const { foundInf } of this.#progress.values()) foundInf?.dispose();
    this.#progress.clear();
    this.#scale = undefined;
    this.#growthTracker = undefined;
  }

  #begun(method: string): { scale: Tensor; growthTracker: Tensor } {
    if (this.#scale && this.#growthTracker) return { scale: this.#scale, growthTracker: this.#growthTracker };
    throw optimizerError(NAME, 'scale', `${method}() before any scale(loss): the gradients were not scaled.`);
  }

  #progressOf(optimizer: Optimizer): OptimizerProgress {
    const progress = this.#progress.get(optimizer) ?? { stage: 'ready', foundInf: null };
    this.#progress.set(optimizer, progress);
    return progress;
  }

  /** Looks for values that are not finite, and multiplies by `inverse` unless that is null. */
  #checkGradients(optimizer: Optimizer, inverse: Tensor | null, unscales: boolean): Tensor {
    const device = this.#scale!.device;
    return keep(
      noGrad(() =>
        tidy(() => {
          const params = optimizer.paramGroups.flatMap((group) => group.params);
          const flags = gradientLists(params).map(({ grads, dtype, device: own }) => {
            if (unscales && dtype === 'float16') throw float16Error();
            const flag = full([], 0, { device: own });
            const factor = inverse ? inverse.to(own) : full([], 1, { device: own });
            checkAndUnscale(grads, flag.handle, factor.handle);
            return flag.to(device);
          });
          return flags.reduce((a, b) => a.maximum(b), full([], 0, { device }));
        }),
      ),
    );
  }
}

function float16Error(): FmoeError {
  const remedy =
    'step() unscales them in float32; to clip, compare with maxNorm * scaler.getScale() before it.';
  const message = `${NAME}: unscale_() of float16 gradients would lose small values. Leave it out: ${remedy}`;
  return new FmoeError('ERR_DTYPE', message, { op: 'unscale_', dtypes: ['float16'] });
}

function checkScalerValues(scale: unknown, growth: unknown, backoff: unknown, interval: unknown): void {
  checkRange(NAME, 'scale', scale, { minimum: Number.MIN_VALUE });
  checkRange(NAME, 'growthFactor', growth, { minimum: 1 + Number.EPSILON });
  checkRange(NAME, 'backoffFactor', backoff, { minimum: Number.MIN_VALUE, below: 1 });
  if (!Number.isSafeInteger(interval) || (interval as number) < 1) {
    throw optimizerError(
      NAME,
      'growthInterval',
      `growthInterval is ${String(interval)}, expected a positive integer.`,
    );
  }
}
