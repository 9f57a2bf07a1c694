import { Writable } from 'node:stream';
import { type LaunchResult, launch } from '../launch/index.js';
import type { TestTransport } from './test-transports.js';

/** How the ranks of a test ended. */
export interface RankRun extends LaunchResult {
  /** What they wrote, line by line, with the rank in brackets. */
  out: string;
  error: string;
  seconds: number;
  /** The end of all that, for the message of a failed test. */
  log: string;
}

export interface RankRunOptions {
  args?: readonly string[];
  env?: Readonly<Record<string, string>>;
  /** A rank that runs longer is killed. Default 120. */
  timeoutSeconds?: number;
}

class Text extends Writable {
  text = '';
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

const logCharacters = 12_000;

/** Starts a TypeScript program as so many ranks, which call `joinTestRanks`, and waits for the end. */
export async function launchTestRanks(
  transport: TestTransport,
  processes: number,
  program: string,
  { args = [], env = {}, timeoutSeconds = 120 }: RankRunOptions = {},
): Promise<RankRun> {
  const [out, error] = [new Text(), new Text()];
  const begin = performance.now();
  const result = await launch(
    {
      // A rank may hang where no deadline of ours ends it: in the driver of a GPU.
      command: [
        'timeout',
        '--foreground',
        '--signal=KILL',
        `${timeoutSeconds}`,
        process.execPath,
        '--import',
        import.meta.resolve('tsx'),
        program,
        ...args,
      ],
      processes,
      backend: transport.backend,
      env: {
        ...process.env,
        OMP_NUM_THREADS: '1',
        FMOE_COMM_TIMEOUT: '60',
        FMOE_TEST_BACKEND: transport.backend,
        FMOE_TEST_DEVICE: transport.device,
        ...(transport.mpirun !== undefined && { FMOE_MPIRUN: transport.mpirun }),
        // What goes over the multicast of NVLink needs rights that a container may lack.
        NCCL_NVLS_ENABLE: '0',
        ...(transport.backend === 'nccl' && { NCCL_DEBUG: 'WARN' }),
        ...env,
      },
    },
    { out, error },
  );
  const seconds = (performance.now() - begin) / 1000;
  const log = `over ${transport.name}, ${processes} ranks, exit code ${result.exitCode} after ${seconds.toFixed(1)} s\n${tail(error.text)}\n${tail(out.text)}`;
  return { ...result, out: out.text, error: error.text, seconds, log };
}

/** What the ranks printed as lines of JSON objects, in whatever order. */
export function reportsOf<Report>(run: RankRun): Report[] {
  return run.out
    .split('\n')
    .map((line) => line.replace(/^\[ *\d+\] /, ''))
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Report);
}

function tail(text: string): string {
  return text.length <= logCharacters ? text : `…${text.slice(-logCharacters)}`;
}
