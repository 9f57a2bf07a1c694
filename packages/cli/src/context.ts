import type { Output } from './output.js';

/** What every command gets. */
export interface Context extends Output {
  /** Sets the exit code of a command that ends without an error. */
  setExitCode(code: number): void;
}

/** Writes a line to standard output. */
export function print(context: Context, line: string): void {
  context.out.write(`${line}\n`);
}
