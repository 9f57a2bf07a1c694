/**
 * Random shapes and routes for the tests of whole operator families, the same on every machine and device.
 *
 * T tokens, K choices a token, E experts, R = T·K rows.
 */

import type { DType, Tensor } from '@fmoe/torch';
import * as torch from '@fmoe/torch';
import type { TestDevice } from '@fmoe/torch/testing';
import { it } from 'vitest';
import { floatingDtypes, integers, roundoff } from './support.js';

/** Cases of each family; a run under a sanitizer asks for fewer. */
const caseCount = Number(process.env['FMOE_RANDOM_CASES'] ?? 300);

interface Limits {
  /** The largest T. */
  tokens?: number;
  /** The largest E. */
  experts?: number;
}

/** Numbers in [0, 1), drawn from a seed (Steele et al., splitmix, in 32 bits). */
function uniformNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** One case: a dtype, a route, and draws for whatever else a test needs. */
export class RandomCase {
  readonly dtype: (typeof floatingDtypes)[number];
  readonly tokens: number;
  readonly choices: number;
  readonly experts: number;
  /** The expert of each slot, flat; -1 = dropped. */
  readonly ids: readonly number[];
  readonly #kind: string;
  readonly #uniform: () => number;

  constructor(
    readonly number: number,
    readonly device: TestDevice,
    limits: Limits = {},
  ) {
    this.#uniform = uniformNumbers(number);
    torch.manualSeed(number);
    const most = limits.tokens ?? 5000;
    const mostExperts = limits.experts ?? 257;
    const logUniform = () => Math.floor(most ** this.#uniform());
    this.dtype = floatingDtypes[number % floatingDtypes.length]!;
    // The largest take as long as all the others, so there are few of them.
    const large = [most - 1, most];
    const small = [0, 1, 2, 63, 129, logUniform(), logUniform(), logUniform()];
    this.tokens = this.pick(this.#uniform() < 0.05 ? large : small);
    this.choices = this.integer(1, 8);
    this.experts = this.pick(
      [1, 2, 3, 8, 64, 257, this.integer(1, 257)].map((e) => Math.min(e, mostExperts)),
    );
    this.#kind = this.pick(['even', 'even', 'skewed', 'some dropped', 'all dropped', 'all on one expert']);
    const one = this.integer(0, this.experts - 1);
    this.ids = Array.from({ length: this.tokens * this.choices }, () => this.#expert(one));
  }

  #expert(one: number): number {
    const share = this.#uniform();
    if (this.#kind === 'all dropped') return -1;
    if (this.#kind === 'all on one expert') return one;
    if (this.#kind === 'some dropped' && this.#uniform() < 0.3) return -1;
    return Math.floor((this.#kind === 'skewed' ? share ** 4 : share) * this.experts);
  }

  /** A whole number between the two, both included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.#uniform() * (high - low + 1));
  }

  pick<T>(values: readonly T[]): T {
    return values[this.integer(0, values.length - 1)]!;
  }

  /** A number of features: odd ones and ones, whole vectors and none; few where there are many rows. */
  width(): number {
    return this.pick(this.ids.length > 8000 ? [1, 7, 8, 16, 33] : [1, 7, 8, 16, 33, 64, 130, 136]);
  }

  /** Normal numbers, drawn on the CPU; a leaf that wants a gradient. */
  normal(shape: number[], dtype: DType = this.dtype, scale = 1): Tensor {
    const values = torch.randn(shape, { dtype: 'float64' }).mul(scale);
    return values.to({ dtype, device: this.device }).requiresGrad_();
  }

  /** Whole numbers from -2 to 2, exact in every dtype; a leaf that wants a gradient. */
  whole(shape: number[], dtype: DType = this.dtype): Tensor {
    return torch.randint(-2, 3, shape).to({ dtype, device: this.device }).requiresGrad_();
  }

  indices(values: readonly number[], shape: number[] = [values.length], dtype: DType = 'int64'): Tensor {
    return torch.tensor(values, { dtype, device: this.device }).view(shape);
  }

  /** The ids as `[T, K]`, now and then in int32. */
  topIdx(): Tensor {
    const dtype = this.number % 3 === 0 ? 'int32' : 'int64';
    return this.indices(this.ids, [this.tokens, this.choices], dtype);
  }

  /** The slots of each expert, in their order. */
  slotsOfExperts(): number[][] {
    const lists = Array.from({ length: this.experts }, (): number[] => []);
    this.ids.forEach((expert, slot) => {
      if (expert >= 0) lists[expert]!.push(slot);
    });
    return lists;
  }

  toString(): string {
    const { number, dtype, tokens, choices, experts } = this;
    return `case ${number} (T ${tokens}, K ${choices}, E ${experts}, ${this.#kind}, ${dtype})`;
  }
}

/** One test that goes through the random cases and names the one that fails. */
export function itInRandomCases(
  title: string,
  device: TestDevice,
  body: (one: RandomCase) => void,
  limits: Limits = {},
): void {
  it(`${title}, in ${caseCount} random cases`, { timeout: 600_000 }, () => {
    for (let number = 0; number < caseCount; number++) {
      torch.tidy(() => {
        const one = new RandomCase(number, device, limits);
        try {
          body(one);
        } catch (error) {
          throw new Error(`${one}: ${(error as Error).message}`, { cause: error });
        }
      });
    }
  });
}

/** values[index] along the first dimension, zeros where the index is -1. */
export function rowsAt(values: Tensor, index: Tensor): Tensor {
  const width = values.shape[1]!;
  if (values.shape[0] === 0)
    return torch.zeros([index.shape[0]!, width], { dtype: values.dtype, device: values.device });
  const kept = index.ge(0).to(values.dtype).view([-1, 1]);
  return values.indexSelect(0, index.clampMin(0)).mul(kept);
}

/** Asserts the values of an index tensor. */
export function expectIntegers(actual: Tensor, expected: readonly number[], name: string): void {
  if (actual.dtype !== 'int64') throw new Error(`${name} is ${actual.dtype}, expected int64`);
  const got = integers(actual.cpu());
  if (got.length !== expected.length) {
    throw new Error(`${name} has ${got.length} values, expected ${expected.length}`);
  }
  const at = got.findIndex((value, i) => value !== expected[i]);
  if (at >= 0) throw new Error(`${name} holds ${got[at]} at ${at}, expected ${expected[at]}`);
}

/** Asserts that every error is inside its bound; NaN is not. */
export function expectInside(actual: Tensor, exact: Tensor, bound: Tensor, name: string): void {
  if (actual.shape.join() !== exact.shape.join()) {
    throw new Error(`${name} has shape [${actual.shape}], expected [${exact.shape}]`);
  }
  const error = actual.detach().double().sub(exact).abs();
  if (error.le(bound).all().item()) return;
  const [worst, most] = [error.max().item(), error.sub(bound).max().item()];
  throw new Error(`${name} is off by up to ${worst}, over its bound by ${most}`);
}

/**
 * Asserts sums of `length` products that are accumulated in float32 (float64 for float64) and rounded once to their dtype:
 * `magnitude` is the same sum over absolute values, `exact` and it are float64.
 */
export function expectSums(
  actual: Tensor,
  exact: Tensor,
  magnitude: Tensor,
  length: number,
  name: string,
): void {
  const unit = roundoff[actual.dtype]!;
  const accumulation = magnitude.mul(Math.min(unit, roundoff['float32']!) * (length + 2));
  const bound = exact.abs().add(accumulation).mul(unit).add(accumulation).add(smallest(actual.dtype));
  expectInside(actual, exact, bound, name);
}

/** Half the smallest positive float16: below the normal range rounding is absolute. */
export function smallest(dtype: DType): number {
  return dtype === 'float16' ? 2 ** -25 : 0;
}
