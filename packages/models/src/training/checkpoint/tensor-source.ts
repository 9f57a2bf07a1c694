/** Shape letters: N all experts. */

import type { LocalExperts } from '@fmoe/layers';
import { FmoeError, SafetensorsFile, stack, type Tensor, tensor } from '@fmoe/torch';
import { joinExperts, nameOfExpert, splitName } from './global-names.js';

/**
 * Tensors that lie in one file or in those of many ranks, by the names that they have on one process: a tensor `[N, …]` is found
 * whether it was written whole or expert by expert.
 */
export class TensorSource {
  readonly #files: SafetensorsFile[] = [];
  /** File and the name in it, by global name. */
  readonly #places = new Map<string, { file: SafetensorsFile; stored: string }>();
  /** The experts that have a part of their own, by the name of the whole. */
  readonly #experts = new Map<string, number[]>();

  /**
   * @param rename gives the global name of what is stored; undefined for what is not to be found
   * @throws FmoeError ERR_FILE when a file cannot be read
   */
  constructor(paths: readonly string[], rename: (stored: string) => string | undefined = (stored) => stored) {
    for (const path of paths) {
      const file = new SafetensorsFile(path);
      this.#files.push(file);
      for (const stored of file.names()) {
        const name = rename(stored);
        if (name === undefined) continue;
        this.#places.set(name, { file, stored });
        const { base, expert } = splitName(name);
        if (expert === undefined) continue;
        const experts = this.#experts.get(base) ?? [];
        experts.push(expert);
        this.#experts.set(base, experts);
      }
    }
  }

  /** Names of whole tensors. */
  names(): string[] {
    return [...new Set([...this.#places.keys()].map((name) => splitName(name).base))];
  }

  has(name: string): boolean {
    return this.#places.has(name) || this.#experts.has(name);
  }

  /** How many experts a tensor was written for one by one; undefined when it was written whole. */
  expertsOf(name: string): number | undefined {
    return this.#experts.get(name)?.length;
  }

  /** A whole tensor. */
  get(name: string): Tensor {
    const experts = this.#experts.get(name);
    if (experts === undefined) return this.#read(name);
    const ids = experts.map((_, index) => index);
    return this.experts(name, { total: ids.length, ids });
  }

  /**
   * The rows of some experts of a tensor `[N, …]`.
   *
   * @throws FmoeError ERR_FILE when an expert is missing or there are others
   */
  experts(name: string, { total, ids }: LocalExperts): Tensor {
    const parts = this.#experts.get(name);
    if (parts === undefined) {
      const whole = this.#read(name);
      if (whole.shape.length === 0) return whole;
      this.#checkTotal(name, whole.shape[0]!, total);
      return whole.indexSelect(0, tensor([...ids], { dtype: 'int64' }));
    }
    this.#checkTotal(name, parts.length, total);
    return joinExperts(
      name,
      ids.map((expert) => this.#read(nameOfExpert(name, expert))),
      (all) => stack([...all]),
    );
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  #read(name: string): Tensor {
    const place = this.#places.get(name);
    if (place !== undefined) return place.file.tensor(place.stored);
    throw new FmoeError('ERR_FILE', `The checkpoint lacks ${name}. Use an earlier one.`);
  }

  #checkTotal(name: string, found: number, expected: number): void {
    if (found === expected) return;
    throw new FmoeError(
      'ERR_STATE_DICT',
      `The checkpoint has ${found} experts in ${name}, the model has ${expected}.`,
    );
  }
}
