import { Writable } from 'node:stream';
import { runCli } from '../src/run-cli.js';

class Text extends Writable {
  text = '';

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

/** Runs the command line in this process and catches what it writes. */
export async function capture(...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const out = new Text();
  const error = new Text();
  const code = await runCli(args, { out, error });
  return { code, out: out.text, error: error.text };
}
