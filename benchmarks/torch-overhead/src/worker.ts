import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';
import type { Request } from './protocol.js';

/** A process that measures one case a line. */
export class Worker {
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;
  private readonly reader: Interface;

  constructor(command: string, args: readonly string[], cwd: string) {
    this.child = spawn(command, args, { cwd, stdio: ['pipe', 'pipe', 'inherit'] });
    this.reader = createInterface(this.child.stdout!);
    this.lines = this.reader[Symbol.asyncIterator]();
  }

  /** The next line that the process prints: first its versions, then an answer to each request. */
  async read(): Promise<unknown> {
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`the worker ended early: ${this.child.spawnargs.join(' ')}`);
    return JSON.parse(value as string);
  }

  /** Microseconds an iteration. */
  async measure(request: Request): Promise<number> {
    this.child.stdin!.write(`${JSON.stringify(request)}\n`);
    return (await this.read()) as number;
  }

  close(): void {
    this.child.stdin!.end();
    this.reader.close();
  }
}
