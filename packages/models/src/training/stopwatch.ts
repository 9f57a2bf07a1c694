/** Adds up time over several spans. */
export class Stopwatch {
  #total = 0;
  #since: number | undefined;

  /** Seconds of all spans, the running one included. */
  get seconds(): number {
    const running = this.#since === undefined ? 0 : performance.now() - this.#since;
    return (this.#total + running) / 1000;
  }

  start(): void {
    this.#since ??= performance.now();
  }

  stop(): void {
    this.#total = this.seconds * 1000;
    this.#since = undefined;
  }

  /** Sets the total of a stopped watch. */
  set(seconds: number): void {
    this.#total = seconds * 1000;
  }
}
