/** Shape letters: B batch columns, W ranks. */
import type { ProcessGroup } from '@fmoe/comm';
import { DistributedGroupedDataParallel, expertLayout, LoadStatistics } from '@fmoe/layers';
import { FmoeError, type nn, optim, type Tensor, tensor, tidy } from '@fmoe/torch';
import type { ExpertLayout } from './checkpoint/index.js';

/**
 * The ranks that train one model together, or this process alone. Each rank has some columns of the batch and some of the experts;
 * its loss is its share of the whole batch's, so gradients and losses of the ranks add up to those of one process.
 */
export class TrainingRanks {
  /** Null for this process alone. */
  readonly group: ProcessGroup | null;
  readonly rank: number;
  readonly size: number;
  /** Which tensors of the model are those of experts. Empty for this process alone, which has all of them. */
  readonly layout: ExpertLayout;
  readonly #parallel: DistributedGroupedDataParallel | null;

  /** @param model made with the group as its `moeGroup`, and on its device */
  constructor(group: ProcessGroup | null, model: nn.Module) {
    this.group = group !== null && group.size > 1 ? group : null;
    this.rank = this.group?.rank ?? 0;
    this.size = this.group?.size ?? 1;
    this.layout = this.group === null ? new Map() : expertLayout(model);
    this.#parallel =
      this.group === null
        ? null
        : new DistributedGroupedDataParallel(model, { groups: { dp: this.group }, noScale: true });
  }

  /** Whether this is the rank that writes what is written once. */
  get isFirst(): boolean {
    return this.rank === 0;
  }

  /**
   * The columns of a batch that a rank has, this one by default: the first, and one past the last.
   *
   * @throws FmoeError ERR_CONFIG when there are fewer columns than ranks
   */
  columnsOf(batchSize: number, rank: number = this.rank): [number, number] {
    const { size } = this;
    if (batchSize < size) {
      throw new FmoeError(
        'ERR_CONFIG',
        `training.batchSize is ${batchSize}, but ${size} ranks need a column each.`,
      );
    }
    return [Math.floor((rank * batchSize) / size), Math.floor(((rank + 1) * batchSize) / size)];
  }

  /** Runs a backward pass that is not the last of a step. */
  withoutCombining<Result>(body: () => Result): Result {
    return this.#parallel === null ? body() : this.#parallel.noSync(body);
  }

  /** Adds up the gradients of all ranks and clips them by the norm of all parameters; returns the norm before. */
  combineAndClip(parameters: readonly Tensor[], maxNorm: number): Tensor {
    if (this.#parallel === null) return optim.clipGradNorm_(parameters, maxNorm);
    this.#parallel.allreduceGradients();
    return this.#parallel.clipGradNorm_(maxNorm);
  }

  /** The numbers that a model learns, those of the experts of other ranks included. All ranks must ask. */
  countParameters(model: nn.Module): number {
    let [dense, experts] = [0, 0];
    for (const [name, parameter] of model.namedParameters()) {
      if (this.layout.has(name)) experts += parameter.numel();
      else dense += parameter.numel();
    }
    return dense + tidy(() => this.sum_(tensor([experts], { dtype: 'int64' })).item());
  }

  /** Adds up a tensor of all ranks, in place. */
  sum_(tensor: Tensor): Tensor {
    return this.group === null ? tensor : this.group.allReduce_(tensor);
  }

  /** Adds up what the layers have counted. */
  combineLoads(model: nn.Module): void {
    if (this.group === null) return;
    for (const module of model.modules()) {
      if (module instanceof LoadStatistics) for (const buffer of module.buffers()) this.sum_(buffer);
    }
    for (const [name, buffer] of model.namedBuffers()) if (name.endsWith('.routerEntropy')) this.sum_(buffer);
  }

  /** Whether any rank says yes. All ranks must ask. */
  any(flag: boolean): boolean {
    const { group } = this;
    if (group === null) return flag;
    return tidy(() => group.allReduce_(tensor([flag ? 1 : 0], { dtype: 'int32' }), 'max').item() > 0);
  }

  /** Returns when all ranks have come here. */
  barrier(): void {
    this.group?.barrier();
  }

  /** Takes the hooks off the model. */
  dispose(): void {
    this.#parallel?.dispose();
  }
}
