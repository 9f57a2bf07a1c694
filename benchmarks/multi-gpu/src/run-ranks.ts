import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { type LaunchBackend, launch } from '@fmoe/comm';

/** What to start. */
export interface RanksRun {
  /** The command of each rank; a folder where rank r leaves its results in `rank-r.json` is added as the last argument. */
  command: readonly string[];
  ranks: number;
  backend: LaunchBackend;
  /** When they are ended. */
  limitSeconds: number;
}

/** What came of it. */
export interface RanksResult<Result> {
  /** By rank, of those that left any. */
  results: Result[];
  /** Why they did not end well, with the last that they wrote. */
  error?: string;
}

/** The command that runs a TypeScript file of the folder `ranks`. */
export function rankCommand(file: string, settings: unknown): string[] {
  const program = fileURLToPath(new URL(`./ranks/${file}`, import.meta.url));
  return [process.execPath, '--import', import.meta.resolve('tsx'), program, JSON.stringify(settings)];
}

/** Starts ranks, waits for them, for no longer than they may take, and reads what they left. Does not throw for what goes wrong there. */
export async function runRanks<Result>(run: RanksRun): Promise<RanksResult<Result>> {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-multi-gpu-'));
  const words = new Tail();
  // The launcher passes a signal on to the ranks, and ends them at a second one.
  const end = (): void => void process.emit('SIGTERM', 'SIGTERM');
  const timers = [0, 3].map((more) => setTimeout(end, (run.limitSeconds + more) * 1000));
  try {
    const { exitCode, stoppedBy } = await launch(
      {
        command: [...run.command, folder],
        processes: run.ranks,
        backend: run.backend,
        env: {
          NCCL_NVLS_ENABLE: '0',
          FMOE_COMM_TIMEOUT: '60',
          MPIR_CVAR_CH4_PROGRESS_THROTTLE: '1',
          ...process.env,
        },
      },
      { out: words, error: words },
    );
    const results = read<Result>(folder, run.ranks);
    if (exitCode === 0) {
      const isWhole = results.length === run.ranks;
      return isWhole
        ? { results }
        : { results, error: `${results.length} of ${run.ranks} ranks left results` };
    }
    const cause = stoppedBy ? `not done after ${run.limitSeconds.toFixed(0)} s` : `exit code ${exitCode}`;
    return { results, error: `${cause}\n${words.text}`.trim() };
  } catch (error) {
    return { results: [], error: String(error) };
  } finally {
    for (const timer of timers) clearTimeout(timer);
    rmSync(folder, { recursive: true, force: true });
  }
}

function read<Result>(folder: string, ranks: number): Result[] {
  const results: Result[] = [];
  for (let rank = 0; rank < ranks; rank++) {
    try {
      results.push(JSON.parse(readFileSync(join(folder, `rank-${rank}.json`), 'utf8')) as Result);
    } catch {}
  }
  return results;
}

/** The end of what is written to it. */
class Tail extends Writable {
  text = '';

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text = `${this.text}${chunk.toString()}`.slice(-3000);
    done();
  }
}
