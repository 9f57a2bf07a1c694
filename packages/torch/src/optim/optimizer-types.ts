import type { HandleList } from '../native/index.js';
import type { Tensor } from '../tensor/tensor.js';

/** Options that every optimizer has. */
export interface OptimizerOptions {
  /** Learning rate, 0 or more. */
  lr: number;
  /**
   * Update a float32 copy of every float16 and bfloat16 parameter and round it into the parameter after each step, so that
   * small updates are not lost. Adds 4 bytes a parameter, and the other state is float32 too.
   */
  masterWeights: boolean;
}

/** Parameters with the options they are optimized by. */
export type ParameterGroup<Options extends OptimizerOptions = OptimizerOptions> = Options & {
  readonly params: readonly Tensor[];
  /** Set when the optimizer was made from named parameters. */
  readonly paramNames?: readonly string[];
  /** The learning rate before any scheduler changed it; set by schedulers. */
  initialLr?: number;
};

/** Parameters to optimize: tensors, or names with tensors as `module.namedParameters()` gives them. */
export type ParameterList = Iterable<Tensor> | Iterable<readonly [name: string, tensor: Tensor]>;

/** A group as it is passed in: options left out are the optimizer's own. */
export type ParameterGroupInput<Options extends OptimizerOptions> = Partial<Options> & {
  params: Tensor | ParameterList;
};

/** What an optimizer is made from. */
export type ParameterInput<Options extends OptimizerOptions> =
  | ParameterList
  | Iterable<ParameterGroupInput<Options>>;

/** The tensors that an optimizer keeps for one parameter, under PyTorch's names. */
export type ParameterState = Record<string, Tensor>;

/** What a state tensor must be like. */
export type TensorSpec = Pick<Tensor, 'shape' | 'dtype' | 'device'>;

/** Tensors of a gradient scaler that a step takes into account without reading them. */
export interface GradientScaling {
  /** What the gradients are still multiplied by, or null when they are not. float32, one element. */
  gradScale: Tensor | null;
  /** 1 when a gradient is not finite and the step must change nothing, else 0. float32, one element. */
  foundInf: Tensor;
}

/**
 * The lists that one update works on: all tensors of one dtype on one device, dense and row-major. They are lists of handles,
 * as the fused operators take them; {@link tensors} gives tensors.
 */
export interface UpdateLists {
  /** What is updated: parameters, their float32 masters, or contiguous copies. */
  readonly targets: HandleList;
  /** Gradients in the order and dtype of `targets`. */
  readonly grads: HandleList;
  /** State tensors by name, in the order of `targets`. */
  readonly state: Readonly<Record<string, HandleList>>;
  /** The state was made for this very step. */
  readonly isFirstStep: boolean;
  readonly device: string;
  /** The same as tensors, for updates made of single operators. They belong to the optimizer: do not dispose them. */
  tensors(): { targets: Tensor[]; grads: Tensor[]; state: Record<string, Tensor[]> };
}
