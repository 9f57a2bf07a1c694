// Runs everything that a GPU host can test and writes what came out as JSON: the TypeScript suites on every device, the kernels'
// Python tests, and a part of these under compute-sanitizer.
//
//   ./fmoe-bundle/run node scripts/record-gpu-run.mjs RESULT.json [files or folders of the TypeScript tests, default packages]
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { readJsonIfAny } from '../packages/torch/setup/files.mjs';
import { root } from './workspace.mjs';

/** Every kernel, in a few cases each: the checker slows all of it down by an order of magnitude. */
const SANITIZED =
  '[3] or [17] or [42] or [86] or large_layers or out_of_range or contradictions or 67-33 or many_experts or flagged';

const [result, ...files] = process.argv.slice(2);
if (result === undefined) {
  console.error('usage: record-gpu-run.mjs RESULT.json [test files or folders]');
  process.exit(2);
}
const workers = Math.min(12, availableParallelism());

/**
 * @param {string} program
 * @param {string[]} args
 * @param {import('node:child_process').SpawnSyncOptions} [options]
 */
function run(program, args, options = {}) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    ...options,
  });
  return { status, output: error ? error.message : `${stdout}${stderr}` };
}

/** @param {string} output of pytest */
function pytestCounts(output) {
  const counts = [...output.matchAll(/(\d+) (passed|failed|skipped|error)/g)].map(([, count, word]) => [
    word,
    Number(count),
  ]);
  return {
    ...Object.fromEntries(counts),
    failures: [...output.matchAll(/^FAILED (\S+)/gm)].map(([, name]) => name),
  };
}

/** @param {string} expression of Python, which sees torch */
const ofTorch = (expression) => run('python3', ['-c', `import torch; print(${expression})`]).output.trim();

function typescript() {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-record-'));
  const summary = join(folder, 'summary.json');
  const { status, output } = run(
    process.execPath,
    [
      join(root, 'node_modules/vitest/vitest.mjs'),
      'run',
      ...[
        '--reporter=dot',
        `--reporter=${join(root, 'scripts/summary-reporter.mjs')}`,
        `--maxWorkers=${workers}`,
      ],
      ...(files.length > 0 ? files : ['packages']),
    ],
    { cwd: root, env: { ...process.env, FMOE_TEST_SUMMARY: summary, NO_COLOR: '1' } },
  );
  console.log(output);
  const counted = readJsonIfAny(summary);
  rmSync(folder, { recursive: true, force: true });
  return {
    status,
    ...counted,
    failures: [...new Set([...output.matchAll(/FAIL.*? (packages\S+.*)$/gm)].map(([, name]) => name))],
  };
}

const python = join(root, 'packages/kernels/python');
const pytest = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider'];

function kernels() {
  const { status, output } = run('python3', [...pytest, '-n', `${workers}`, 'test_cuda.py'], { cwd: python });
  console.log(output.slice(-3000));
  return { status, ...pytestCounts(output) };
}

function memcheck() {
  const checker = ['--tool', 'memcheck', '--error-exitcode', '99'];
  const { status, output } = run(
    'compute-sanitizer',
    [...checker, 'python3', ...pytest, '-x', '-k', SANITIZED, 'test_cuda.py'],
    { cwd: python },
  );
  console.log(output.slice(-3000));
  const errors = /ERROR SUMMARY: (\d+) error/.exec(output)?.[1];
  return { status, errors: errors === undefined ? null : Number(errors), ...pytestCounts(output) };
}

const record = {
  gpus: run('nvidia-smi', ['--query-gpu=name,driver_version', '--format=csv,noheader'])
    .output.trim()
    .split('\n'),
  cpu: cpus()[0]?.model,
  torch: ofTorch('torch.__version__'),
  cuda: ofTorch('torch.version.cuda'),
  nccl: ofTorch('".".join(map(str, torch.cuda.nccl.version()))'),
  node: process.version,
  kernelsInPython: kernels(),
  memcheck: memcheck(),
  typescript: typescript(),
};
writeFileSync(result, `${JSON.stringify(record, null, 2)}\n`);
const statuses = [record.kernelsInPython, record.memcheck, record.typescript].map(({ status }) => status);
process.exitCode = statuses.every((status) => status === 0) ? 0 : 1;
