import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** How a child process ended. */
export interface ChildResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

const packageFolder = fileURLToPath(new URL('../../', import.meta.url));

/** The URL of this package's sources, for the import statements of child programs. */
export const sources = new URL('../../src/index.ts', import.meta.url).href;

/** Flags with which Node runs TypeScript. */
export const typescript = ['--import', import.meta.resolve('tsx')];

/** Where and how long a child may run. */
export interface ChildOptions {
  /** Default: this package's folder. */
  cwd?: string;
  /** Default: 60. */
  timeoutSeconds?: number;
}

/** Runs Node with these arguments and waits for its end. */
export function runNode(
  args: readonly string[],
  { cwd = packageFolder, timeoutSeconds = 60 }: ChildOptions = {},
): Promise<ChildResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...typescript, ...args], {
      cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutSeconds * 1000,
      killSignal: 'SIGKILL',
    });
    const result = { stdout: '', stderr: '' };
    child.stdout.on('data', (data) => {
      result.stdout += String(data);
    });
    child.stderr.on('data', (data) => {
      result.stderr += String(data);
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, ...result }));
  });
}

/** Runs the text of an ES module that may import `torch`. */
export function runProgram(text: string, flags: readonly string[] = []): Promise<ChildResult> {
  const program = `import * as torch from ${JSON.stringify(sources)};\n${text}`;
  return runNode([...flags, '--input-type=module', '--eval', program]);
}
