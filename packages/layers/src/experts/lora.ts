/** Shape letters: E local experts, R routed rows, r rank. */
import { groupedLinear } from '@fmoe/kernels';
import { empty, FmoeError, nn, noGrad, type Tensor, tidy, zeros } from '@fmoe/torch';
import { checkSize } from '../check.js';
import type { RowCost } from '../inspect/row-cost.js';
import { drawExperts, type ExpertParameter } from '../parallel/local-experts.js';
import type { TaggedParameter } from '../parallel-comm.js';
import { ExpertMLP } from './expert-mlp.js';
import { FMoELinear } from './fmoe-linear.js';

/** Settings of {@link addLoRA}. */
export interface LoRAOptions {
  /** Rank r of the update. */
  rank: number;
  /** The update is scaled by alpha / rank. Default: rank, a factor of 1. */
  alpha?: number;
  /** Probability of dropping an input of the update, in training. Default 0. */
  dropout?: number;
}

/**
 * A linear layer per expert with a low-rank update beside its frozen weight (Hu et al., 2021, arXiv 2106.09685):
 * y = x Wₑᵀ + bₑ + (alpha / r) · x Aₑᵀ Bₑᵀ. At first B is zero, and the layer computes what it did before.
 *
 * The parameters of the base keep their names, so that its checkpoints load: `weight`, `bias`, beside `lora_A`, `lora_B`.
 */
export class LoRALinear extends nn.Module {
  readonly numExpert: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  /** `[E, out, in]`, that of the base. */
  readonly weight: nn.Parameter;
  /** `[E, out]` or null, that of the base. */
  readonly bias: nn.Parameter | null;
  /** `[E, r, in]`, uniform in ±1/√in at first. */
  readonly lora_A: nn.Parameter;
  /** `[E, out, r]`, zero at first. */
  readonly lora_B: nn.Parameter;
  readonly dropout: nn.Dropout;
  /** alpha / r */
  readonly scale: number;
  readonly #base: FMoELinear;
  readonly #trained: readonly boolean[];

  /** @throws FmoeError `ERR_ARGUMENT` for a rank that is no positive integer, or an alpha or dropout out of range. */
  constructor(base: FMoELinear, options: LoRAOptions) {
    super();
    const rank = checkSize('LoRALinear', 'rank', options.rank);
    const alpha = options.alpha ?? rank;
    if (!(Number.isFinite(alpha) && alpha > 0)) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `LoRALinear: alpha must be a positive number, got ${String(alpha)}.`,
        {
          op: 'LoRALinear',
          argument: 'alpha',
        },
      );
    }
    this.numExpert = base.numExpert;
    this.inFeatures = base.inFeatures;
    this.outFeatures = base.outFeatures;
    this.weight = base.weight;
    this.bias = base.bias;
    const { dtype, device } = base.weight;
    const { numExpert, inFeatures, outFeatures } = base;
    const bound = 1 / Math.sqrt(inFeatures);
    this.lora_A = tidy(() => new nn.Parameter(empty([numExpert, rank, inFeatures], { dtype, device })));
    this.lora_B = tidy(() => new nn.Parameter(zeros([numExpert, outFeatures, rank], { dtype, device })));
    for (const parameter of [this.lora_A, this.lora_B]) tagLike(parameter, base.weight);
    drawExperts(this.lora_A, (all) => nn.init.uniform_(all, -bound, bound));
    this.dropout = new nn.Dropout(options.dropout ?? 0);
    this.scale = alpha / rank;
    this.#base = base;
    this.#trained = base.parameters().map((parameter) => parameter.requiresGrad);
    base.requiresGrad_(false);
  }

  /** @param rows `[R, in]`, grouped by expert @param offsets `[E+1]` @returns `[R, out]` */
  override forward(rows: Tensor, offsets: Tensor): Tensor {
    const low = groupedLinear(this.dropout.call(rows), this.lora_A, null, offsets);
    const update = groupedLinear(low, this.lora_B, null, offsets).mul(this.scale);
    return groupedLinear(rows, this.weight, this.bias, offsets).add(update);
  }

  /** What one row costs, see `rowCost`: beside the base's, the products with A and B, the row between them, and a dropped input. */
  costPerRow(): RowCost {
    const { inFeatures, outFeatures } = this;
    const rank = this.lora_A.shape[1]!;
    const base = this.#base.costPerRow();
    return {
      flops: base.flops + 2 * rank * (inFeatures + outFeatures),
      // Dropout keeps its mask, and gives the product with A an input of its own.
      savedNumbers: base.savedNumbers + rank + (this.dropout.p > 0 ? 2 * inFeatures : 0),
    };
  }

  /** Adds the update to the base's weight, which may be trained again as before, and gives the base back. */
  merge(): FMoELinear {
    tidy(() =>
      noGrad(() => {
        this.weight.add_(this.lora_B.bmm(this.lora_A).mul(this.scale));
      }),
    );
    this.#base.parameters().forEach((parameter, index) => {
      parameter.requiresGrad = this.#trained[index] as boolean;
    });
    for (const parameter of [this.lora_A, this.lora_B]) parameter.dispose();
    return this.#base;
  }

  override extraRepr(): string {
    const { numExpert, inFeatures, outFeatures } = this;
    return `num_expert=${numExpert}, in_features=${inFeatures}, out_features=${outFeatures}, rank=${this.lora_A.shape[1]}`;
  }
}

/** A parameter of the same experts as another, synchronised over the same ranks. */
function tagLike(parameter: nn.Parameter, other: ExpertParameter & TaggedParameter): void {
  const { dp_comm, experts } = other;
  if (dp_comm !== undefined) (parameter as TaggedParameter).dp_comm = dp_comm;
  if (experts !== undefined) (parameter as ExpertParameter).experts = experts;
}

const layersOf = ['htoh4', 'h4toh'] as const;

/**
 * Gives the experts of a model ({@link ExpertMLP}, such as those of `FMoETransformerMLP`) low-rank updates to train in the
 * place of their weights, which are frozen. Routers and everything else stay as they are: freeze them with
 * `model.requiresGrad_(false)` before, where they are not to be trained.
 *
 * Updates are tagged as the weights beside them: of experts that are spread over ranks each rank trains its own. Those of an
 * `ExpertMLP` for all experts start as on one process; in a list of modules each rank draws for its own alone.
 *
 * @returns the parameters of the updates, for the optimizer
 * @throws FmoeError `ERR_ARGUMENT` when the model has no such experts, or for settings out of range.
 */
export function addLoRA(model: nn.Module, options: LoRAOptions): nn.Parameter[] {
  const added: nn.Parameter[] = [];
  for (const experts of model.modules()) {
    if (!(experts instanceof ExpertMLP)) continue;
    for (const name of layersOf) {
      const base = experts[name];
      if (!(base instanceof FMoELinear)) continue;
      const adapted = new LoRALinear(base, options);
      adapted.train(experts.training);
      experts[name] = adapted;
      added.push(adapted.lora_A, adapted.lora_B);
    }
  }
  if (added.length > 0) return added;
  throw new FmoeError(
    'ERR_ARGUMENT',
    'addLoRA: the model has no experts of the class ExpertMLP that are not adapted already.',
    { op: 'addLoRA', argument: 'model' },
  );
}

/** Adds the updates of {@link addLoRA} to the experts' weights and takes them off: the model is one without them again. */
export function mergeLoRA(model: nn.Module): void {
  for (const experts of model.modules()) {
    if (!(experts instanceof ExpertMLP)) continue;
    for (const name of layersOf) {
      const layer = experts[name];
      if (layer instanceof LoRALinear) experts[name] = layer.merge();
    }
  }
}
