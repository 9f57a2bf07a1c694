import type { Tensor } from '@fmoe/torch';

/** What a rank compares, and what it found to differ. */
export class Comparison {
  readonly #tolerance: number;
  readonly #failures: string[] = [];
  #comparisons = 0;
  /** What is compared from now on; stands before each failure. */
  title = '';

  /** @param tolerance of the difference, relative to the largest expected number and at least 1 */
  constructor(tolerance: number) {
    this.#tolerance = tolerance;
  }

  compare(what: string, actual: Tensor | null, expected: Tensor | null): void {
    this.#comparisons++;
    if (actual === null || expected === null) {
      if (actual !== expected) this.#fail(`${what}: ${actual === null ? 'nothing' : 'something'} here`);
      return;
    }
    if (`${actual.shape}` !== `${expected.shape}`) {
      this.#fail(`${what}: [${actual.shape}], expected [${expected.shape}]`);
    } else if (actual.numel() > 0) {
      const scale = Math.max(1, expected.abs().max().item());
      const difference = actual.sub(expected).abs().max().item() / scale;
      if (!(difference <= this.#tolerance)) this.#fail(`${what}: differs by ${difference}`);
    }
  }

  check(what: string, holds: boolean, found: string): void {
    this.#comparisons++;
    if (!holds) this.#fail(`${what}: found ${found}`);
  }

  /** One line of JSON for the test that started the ranks. */
  print(rank: number): void {
    const [comparisons, failed] = [this.#comparisons, this.#failures.length];
    console.log(JSON.stringify({ rank, comparisons, failures: this.#failures.slice(0, 20), failed }));
  }

  #fail(failure: string): void {
    this.#failures.push(this.title === '' ? failure : `${this.title}: ${failure}`);
  }
}
