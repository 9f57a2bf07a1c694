// Letters: L length of the query, S length of key and value, B batch, E width, H heads, D width of a head.

import { FmoeError } from '../errors.js';
import { tidy } from '../scope.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { type AttentionMasks, attend } from './attend.js';
import { checkCount, checkProbability } from './check.js';
import { requireShape, requireTensors, shapeOf } from './diagnose.js';
import { checkModuleOptions, type FactoryOptions, factoryOptions } from './factory-options.js';
import { linear } from './functional/linear.js';
import { constant_, xavierUniform_ } from './init.js';
import { Linear } from './linear.js';
import { Module } from './module.js';
import { Parameter } from './parameter.js';

export interface MultiheadAttentionOptions extends FactoryOptions {
  /** Probability of dropping an attention weight in training mode. Default 0. */
  dropout?: number;
  /** Biases in all projections. Default true. */
  bias?: boolean;
  /** Width of the key. Default `embedDim`. */
  kdim?: number;
  /** Width of the value. Default `embedDim`. */
  vdim?: number;
  /** Tensors are `[B, L, E]` instead of `[L, B, E]`. Default false. */
  batchFirst?: boolean;
}

export interface MultiheadAttentionCall extends AttentionMasks {
  /** Return the attention weights as well; without them the fused kernels run. Default true. */
  needWeights?: boolean;
  /** Average the returned weights over the heads. Default true. */
  averageAttnWeights?: boolean;
}

/**
 * Attention with several heads (Vaswani et al., 2017).
 *
 * With `kdim` and `vdim` as wide as the query the projections are one parameter `in_proj_weight`; else there are
 * `q_proj_weight`, `k_proj_weight` and `v_proj_weight`.
 */
export class MultiheadAttention extends Module {
  readonly embedDim: number;
  readonly numHeads: number;
  readonly kdim: number;
  readonly vdim: number;
  readonly dropout: number;
  readonly batchFirst: boolean;
  /** `[3 E, E]`: query, key and value, or null when their widths differ */
  in_proj_weight: Parameter | null = null;
  /** `[E, E]`, when the widths differ */
  q_proj_weight: Parameter | null = null;
  /** `[E, kdim]`, when the widths differ */
  k_proj_weight: Parameter | null = null;
  /** `[E, vdim]`, when the widths differ */
  v_proj_weight: Parameter | null = null;
  /** `[3 E]`, or null */
  in_proj_bias: Parameter | null = null;
  readonly out_proj: Linear;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers, or `embedDim` not divisible by `numHeads`. */
  constructor(embedDim: number, numHeads: number, options: MultiheadAttentionOptions = {}) {
    super();
    checkModuleOptions(OPERATION, options, ['dropout', 'bias', 'kdim', 'vdim', 'batchFirst']);
    this.embedDim = checkCount(OPERATION, 'embedDim', embedDim, 1);
    this.numHeads = checkCount(OPERATION, 'numHeads', numHeads, 1);
    this.kdim = checkCount(OPERATION, 'kdim', options.kdim ?? embedDim, 1);
    this.vdim = checkCount(OPERATION, 'vdim', options.vdim ?? embedDim, 1);
    this.dropout = checkProbability(OPERATION, 'dropout', options.dropout ?? 0);
    this.batchFirst = options.batchFirst ?? false;
    if (embedDim % numHeads !== 0) {
      const message = `${OPERATION}: embedDim ${embedDim} must be a multiple of numHeads ${numHeads}.`;
      throw new FmoeError('ERR_ARGUMENT', message, { op: OPERATION, argument: 'numHeads' });
    }
    const bias = options.bias ?? true;
    const place = factoryOptions(options);
    const make = (...shape: number[]) => tidy(() => new Parameter(empty(shape, place)));
    if (this.kdim === embedDim && this.vdim === embedDim) {
      this.in_proj_weight = make(3 * embedDim, embedDim);
    } else {
      this.q_proj_weight = make(embedDim, embedDim);
      this.k_proj_weight = make(embedDim, this.kdim);
      this.v_proj_weight = make(embedDim, this.vdim);
    }
    if (bias) this.in_proj_bias = make(3 * embedDim);
    this.out_proj = new Linear(embedDim, embedDim, { bias, ...place });
    this.resetParameters();
  }

  /** Draws new initial values for the input projections and clears the biases. */
  resetParameters(): void {
    for (const weight of [this.in_proj_weight, this.q_proj_weight, this.k_proj_weight, this.v_proj_weight]) {
      if (weight) xavierUniform_(weight);
    }
    if (!this.in_proj_bias) return;
    constant_(this.in_proj_bias, 0);
    if (this.out_proj.bias) constant_(this.out_proj.bias, 0);
  }

  /**
   * @param query `[L, B, E]`, with `batchFirst` `[B, L, E]`, or `[L, E]` without a batch
   * @param key `[S, B, kdim]`, placed alike
   * @param value `[S, B, vdim]`, placed alike
   * @returns the output, placed like the query, and the weights `[B, L, S]` (`[B, H, L, S]` when not averaged), or null
   * @throws FmoeError `ERR_SHAPE` when sizes do not go together, `ERR_ARGUMENT` for `isCausal` without `attnMask`.
   */
  override forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    call: MultiheadAttentionCall = {},
  ): [output: Tensor, weights: Tensor | null] {
    this.#checkCall(query, key, value, call);
    return tidy(() => {
      const batched = query.ndim === 3;
      const toFirst = (x: Tensor) => (batched ? (this.batchFirst ? x.transpose(0, 1) : x) : x.unsqueeze(1));
      const [q, k, v] = this.#project(toFirst(query), toFirst(key), toFirst(value));
      const heads = { count: this.numHeads, dropout: this.training ? this.dropout : 0 };
      const [mixed, weights] = attend(q, k, v, heads, call, call.needWeights ?? true);
      const projected = this.out_proj.forward(mixed); // [L, B, E]
      const output = batched
        ? this.batchFirst
          ? projected.transpose(0, 1)
          : projected
        : projected.squeeze(1);
      if (!weights) return [output, null];
      const shown = (call.averageAttnWeights ?? true) ? weights.mean([1]) : weights;
      return [output, batched ? shown : shown.squeeze(0)];
    });
  }

  #project(query: Tensor, key: Tensor, value: Tensor): [Tensor, Tensor, Tensor] {
    const bias = this.in_proj_bias?.chunk(3, 0) ?? [];
    const packed = this.in_proj_weight;
    const weights = packed
      ? packed.chunk(3, 0)
      : ([this.q_proj_weight, this.k_proj_weight, this.v_proj_weight] as Tensor[]);
    if (packed && query === key && key === value) {
      return linear(query, packed, this.in_proj_bias).chunk(3, -1) as [Tensor, Tensor, Tensor];
    }
    return [query, key, value].map((input, i) => linear(input, weights[i] as Tensor, bias[i] ?? null)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
  }

  #checkCall(query: Tensor, key: Tensor, value: Tensor, call: MultiheadAttentionCall): void {
    requireTensors(OPERATION, { query, key, value });
    const all = [query, key, value];
    const sizes = `query ${shapeOf(query)}, key ${shapeOf(key)}, value ${shapeOf(value)}`;
    const rank = query.ndim;
    requireShape(
      OPERATION,
      (rank === 2 || rank === 3) && key.ndim === rank && value.ndim === rank,
      `query, key and value must all have three dimensions, or all two; got ${sizes}.`,
      ...all,
    );
    requireShape(
      OPERATION,
      query.shape.at(-1) === this.embedDim &&
        key.shape.at(-1) === this.kdim &&
        value.shape.at(-1) === this.vdim,
      `widths must be ${this.embedDim}, ${this.kdim} and ${this.vdim}; got ${sizes}.`,
      ...all,
    );
    const lengthsMatch = key.shape.slice(0, -1).join() === value.shape.slice(0, -1).join();
    const batchDim = this.batchFirst ? 0 : 1;
    const batchesMatch = rank === 2 || query.shape[batchDim] === key.shape[batchDim];
    requireShape(OPERATION, lengthsMatch && batchesMatch, `lengths or batches differ: ${sizes}.`, ...all);
    if (call.isCausal && !call.attnMask) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `${OPERATION}: isCausal is a hint and needs the attnMask as well.`,
        {
          op: OPERATION,
          argument: 'attnMask',
        },
      );
    }
  }
}

const OPERATION = 'MultiheadAttention';
