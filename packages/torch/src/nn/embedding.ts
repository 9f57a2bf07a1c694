import { noGrad } from '../autograd/index.js';
import { tidy } from '../scope.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkCount, checkNumber } from './check.js';
import { checkModuleOptions, type FactoryOptions, factoryOptions } from './factory-options.js';
import { embedding, resolvePaddingIndex } from './functional/embedding.js';
import { normal_ } from './init.js';
import { Module } from './module.js';
import { pythonFloat } from './module-print.js';
import { Parameter } from './parameter.js';

export interface EmbeddingOptions extends FactoryOptions {
  /** Row that starts as zeros and receives no gradient; negative counts from the end. */
  paddingIdx?: number | null;
  /** Rows that are looked up and whose norm exceeds this are scaled down to it, in place. */
  maxNorm?: number | null;
  /** The p of the p-norm for `maxNorm`. Default 2. */
  normType?: number;
  /** Divide gradients by how often the index occurs in the batch. Default false. */
  scaleGradByFreq?: boolean;
}

/** A table of `numEmbeddings` rows, looked up by index. The weight starts as draws from N(0, 1). */
export class Embedding extends Module {
  readonly numEmbeddings: number;
  readonly embeddingDim: number;
  /** Counted from the start; null when there is none. */
  readonly paddingIdx: number | null;
  readonly maxNorm: number | null;
  readonly normType: number;
  readonly scaleGradByFreq: boolean;
  /** `[numEmbeddings, embeddingDim]` */
  weight: Parameter;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no non-negative integers or a `paddingIdx` outside the table. */
  constructor(numEmbeddings: number, embeddingDim: number, options: EmbeddingOptions = {}) {
    super();
    checkModuleOptions('Embedding', options, ['paddingIdx', 'maxNorm', 'normType', 'scaleGradByFreq']);
    this.numEmbeddings = checkCount('Embedding', 'numEmbeddings', numEmbeddings);
    this.embeddingDim = checkCount('Embedding', 'embeddingDim', embeddingDim);
    const paddingIdx = options.paddingIdx ?? null;
    this.paddingIdx =
      paddingIdx === null ? null : resolvePaddingIndex('Embedding', paddingIdx, numEmbeddings);
    const maxNorm = options.maxNorm ?? null;
    this.maxNorm = maxNorm === null ? null : checkNumber('Embedding', 'maxNorm', maxNorm);
    this.normType = checkNumber('Embedding', 'normType', options.normType ?? 2);
    this.scaleGradByFreq = options.scaleGradByFreq ?? false;
    const place = factoryOptions(options);
    this.weight = tidy(() => new Parameter(empty([numEmbeddings, embeddingDim], place)));
    this.resetParameters();
  }

  /** Draws new initial values. */
  resetParameters(): void {
    normal_(this.weight);
    const row = this.paddingIdx;
    if (row === null) return;
    tidy(() => noGrad(() => this.weight.select(0, row).fill_(0)));
  }

  /** @param input indices `[...]`, int64 or int32 @returns `[..., embeddingDim]` */
  override forward(input: Tensor): Tensor {
    return embedding(input, this.weight, this);
  }

  override extraRepr(): string {
    const parts = [`${this.numEmbeddings}, ${this.embeddingDim}`];
    if (this.paddingIdx !== null) parts.push(`padding_idx=${this.paddingIdx}`);
    if (this.maxNorm !== null) parts.push(`max_norm=${pythonFloat(this.maxNorm)}`);
    if (this.normType !== 2) parts.push(`norm_type=${pythonFloat(this.normType)}`);
    if (this.scaleGradByFreq) parts.push('scale_grad_by_freq=True');
    return parts.join(', ');
  }
}
