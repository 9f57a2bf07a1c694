import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { cuda, libtorchVersion } from '@fmoe/torch';
import { findLibtorch } from '@fmoe/torch/setup';

/** The folder of the NCCL that comes with libtorch, if it has the header. */
export function ncclFolder(): string | undefined {
  const libtorch = findLibtorch();
  const folder = libtorch && join(dirname(libtorch.root), 'nvidia/nccl');
  return folder && existsSync(join(folder, 'include/nccl.h')) ? folder : undefined;
}

/** What the figures were measured on. */
export function describeMachine(device: 'cpu' | 'cuda') {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    ...(device === 'cuda' && {
      gpus: ask('nvidia-smi', [
        '--query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm',
        '--format=csv',
      ]),
      topology: ask('nvidia-smi', ['topo', '-m']),
      links: ask('nvidia-smi', ['nvlink', '-s', '-i', '0']),
      nccl: ncclVersion(),
    }),
  };
}

export function describeVersions() {
  return { torch: libtorchVersion(), node: process.version };
}

/** How many ranks: as many as there are GPUs at most, or as are asked for on CPUs. */
export function worldSizes(device: 'cpu' | 'cuda', most: number): number[] {
  const limit = device === 'cuda' ? Math.min(most, cuda.deviceCount()) : most;
  return [1, 2, 4, 8].filter((ranks) => ranks <= limit);
}

/**
 * What the links of one GPU carry in one direction, in GB/s: on an H100 or H200 18 NVLinks of 25. Unknown for other GPUs, and where
 * links are missing.
 */
export function linkPeak(): number | undefined {
  const links = ask('nvidia-smi', ['nvlink', '-s', '-i', '0']).filter((line) =>
    /Link \d+: [\d.]+ GB\/s/.test(line),
  );
  const [name = ''] = ask('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader']);
  return /H[12]00/.test(name) && links.length > 0 ? 25 * links.length : undefined;
}

function ncclVersion(): string {
  const folder = ncclFolder();
  if (folder === undefined) return 'unknown';
  const header = readFileSync(join(folder, 'include/nccl.h'), 'utf8');
  return ['MAJOR', 'MINOR', 'PATCH']
    .map((part) => new RegExp(`#define NCCL_${part} (\\d+)`).exec(header)?.[1] ?? '?')
    .join('.');
}

/** The lines that a command prints; what went wrong instead, if it did. */
function ask(command: string, args: readonly string[]): string[] {
  try {
    const text = execFileSync(command, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 20_000,
    });
    return stripVTControlCharacters(text).trimEnd().split('\n');
  } catch (error) {
    return [String(error).split('\n')[0]!];
  }
}
