import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

const tailLines = 40;

interface Line {
  rank: number;
  kind: 'out' | 'error';
  text: string;
}

/** Writes what the ranks write, line by line, each with its rank before it. */
export class RankOutput {
  readonly #to: { out: NodeJS.WritableStream; error: NodeJS.WritableStream };
  readonly #only: number | undefined;
  readonly #width: number;
  /** The last lines of error output of ranks that are not shown. */
  readonly #hidden = new Map<number, string[]>();
  #dead: number | undefined;
  #held: Line[] = [];

  constructor(
    to: { out: NodeJS.WritableStream; error: NodeJS.WritableStream },
    worldSize: number,
    only: number | undefined,
  ) {
    this.#to = to;
    this.#only = only;
    this.#width = `${worldSize - 1}`.length;
  }

  /** Shows the lines of a stream as they come. */
  attach(rank: number, kind: 'out' | 'error', stream: Readable): void {
    stream.on('error', () => {});
    createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', (text) => {
      this.#line({ rank, kind, text });
    });
  }

  /**
   * Shows what is known of a rank that failed. From then on lines of other ranks, which will fail because of it, are held
   * back until {@link release}.
   */
  blame(rank: number, message: string): void {
    this.#dead = rank;
    for (const text of this.#hidden.get(rank) ?? []) this.#write({ rank, kind: 'error', text });
    this.#to.error.write(`fmoe: ERR_RUNTIME: ${message}\n`);
  }

  /** Shows what was held back. */
  release(): void {
    for (const line of this.#held.splice(0)) this.#write(line);
  }

  #line(line: Line): void {
    const { rank, kind, text } = line;
    if (this.#only !== undefined && rank !== this.#only) {
      if (kind === 'out') return;
      const tail = this.#hidden.get(rank) ?? [];
      this.#hidden.set(rank, tail);
      tail.push(text);
      if (tail.length > tailLines) tail.shift();
    } else if (this.#dead !== undefined && rank !== this.#dead) {
      this.#held.push(line);
    } else {
      this.#write(line);
    }
  }

  #write({ rank, kind, text }: Line): void {
    this.#to[kind].write(`[${`${rank}`.padStart(this.#width)}] ${text}\n`);
  }
}
