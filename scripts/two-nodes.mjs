/*
 * Trains over MPI on two machines that are simulated: two network namespaces joined by a cable, with another host name and a
 * launcher in each. First to the end, which must give the losses of one process; then the cable is cut, upon which both sides must
 * end with an error that says what is missing, and leave no process.
 *
 *   node scripts/two-nodes.mjs [--require]
 *
 * Needs root, `ip` (iproute2) and `unshare`; where namespaces are not allowed it says why and ends well, with --require badly.
 * FMOE_MPIRUN picks the MPI, as for `fmoe launch`.
 */
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { root } from './workspace.mjs';

/** Seconds that a collective operation may take. */
const limit = 4;
/** Seconds after the cut in which both sides must have ended: the limit, the search for who is missing, and the end of MPI. */
const patience = limit + 16;

const [first, second] = [machine(0), machine(1)];
const nodes = [first, second];
/** @param {number} number */
function machine(number) {
  return {
    number,
    space: `fmoe-${process.pid}-${number}`,
    cable: `fm${process.pid}-${number}`,
    address: `10.213.77.${number + 1}`,
  };
}
const fmoe = [
  process.execPath,
  '--import',
  import.meta.resolve('tsx'),
  join(root, 'packages/cli/src/main.ts'),
];
/** What else two machines do not share; an MPI would use the memory. */
const separate = ['unshare', '--uts', '--ipc', '--mount'];
const folder = mkdtempSync(join(tmpdir(), 'fmoe-two-nodes-'));
let failures = 0;

/** @param {boolean} right @param {string} what @param {string} [details] */
function check(right, what, details = '') {
  console.log(`${right ? 'ok    ' : 'FAILED'}  ${what}`);
  if (right) return;
  failures++;
  console.log(details.replaceAll(/^/gm, '        '));
}

/** @param {...string} args */
function ip(...args) {
  const { status, error, stdout, stderr } = spawnSync('ip', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

/** The two machines and the cable. */
function connect() {
  for (const { space } of nodes) {
    ip('netns', 'add', space);
    ip('-n', space, 'link', 'set', 'lo', 'up');
  }
  ip('link', 'add', first.cable, 'type', 'veth', 'peer', 'name', second.cable);
  for (const { space, cable, address } of nodes) {
    ip('link', 'set', cable, 'netns', space);
    ip('-n', space, 'addr', 'add', `${address}/30`, 'dev', cable);
    ip('-n', space, 'link', 'set', cable, 'up');
  }
}

/** Why this machine cannot simulate two. */
function obstacle() {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return 'network namespaces need root on Linux';
  try {
    connect();
  } catch (error) {
    return `network namespaces are not allowed or iproute2 is missing (${/** @type {Error} */ (error).message})`;
  }
  const { status, error, stderr } = spawnSync('sh', ['-c', `${separate.join(' ')} true`], {
    encoding: 'utf8',
  });
  return status === 0 ? undefined : `namespaces are not allowed (${error?.message ?? stderr.trim()})`;
}

/** Processes on a machine. @param {string} space */
const processesOf = (space) => ip('netns', 'pids', space).split('\n').filter(Boolean).map(Number);

function killAll() {
  for (const { space } of nodes) {
    try {
      for (const pid of processesOf(space)) process.kill(pid, 'SIGKILL');
    } catch {}
  }
}

function cleanUp() {
  killAll();
  for (const { space } of nodes) spawnSync('ip', ['netns', 'delete', space]);
  spawnSync('ip', ['link', 'delete', first.cable]);
  rmSync(folder, { recursive: true, force: true });
}

/** A small corpus, and a configuration for it. */
function makeJob() {
  const words = ['the people', 'of the states', 'shall', 'congress', 'in 1790'];
  const text = Array.from({ length: 3000 }, (_, i) => words[((i * i + 3 * i) % 7) % 5]).join(' ');
  for (const name of ['train', 'valid', 'test']) writeFileSync(join(folder, `${name}.txt`), text);
  const path = join(folder, 'job.config.ts');
  writeFileSync(
    path,
    `export default {
  name: 'job',
  device: 'cpu',
  threads: 1,
  data: { kind: 'text', train: 'train.txt', valid: 'valid.txt', test: 'test.txt' },
  model: { kind: 'transformer-xl', nLayer: 1, nHead: 2, dModel: 16, dInner: 16, memLen: 8, moe: { numExpert: 4 } },
  training: { steps: 10, precision: 'float64', batchSize: 2, tgtLen: 8, optimizer: { kind: 'adam', lr: 1e-2 } },
  evaluation: { every: 0, batchSize: 2 },
  logging: { every: 1 },
};
`,
  );
  return path;
}

/**
 * @param {readonly string[]} command
 * @param {(output: string) => void} [onOutput] gets all that was written so far
 */
function start([program, ...args], onOutput) {
  const child = spawn(/** @type {string} */ (program), args, {
    cwd: root,
    env: { ...process.env, FMOE_COMM_TIMEOUT: `${limit}`, OMP_NUM_THREADS: '1' },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
      onOutput?.(output);
    });
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, output }));
  });
}

/** A launcher on each machine. @param {readonly string[]} args @param {(output: string) => void} [onOutput] of machine 0 */
function startOnBoth(args, onOutput) {
  return nodes.map(({ number, space }) => {
    const own = `hostname ${space} && mount -t tmpfs tmpfs /dev/shm && exec "$@"`;
    const place = ['ip', 'netns', 'exec', space, ...separate, 'sh', '-c', own, 'sh'];
    const where = ['--nnodes', '2', '--node-rank', `${number}`, '--master-addr', first.address];
    return start(
      [...place, ...fmoe, 'launch', '--backend', 'mpi', ...where, '--join-timeout', '60', ...args],
      number === 0 ? onOutput : undefined,
    );
  });
}

/** @param {string} run */
function lossesOf(run) {
  const lines = readFileSync(join(run, 'job', 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n');
  return lines.map((line) => JSON.parse(line).loss).filter((loss) => loss !== undefined);
}

/** @param {string} config */
async function trainToTheEnd(config) {
  const train = (/** @type {string} */ name) => ['train', '-c', config, '-s', `runs=${join(folder, name)}`];
  const alone = await start([...fmoe, ...train('alone')]);
  check(alone.code === 0, 'one process trains', alone.output);
  const ends = await Promise.all(startOnBoth(train('both')));
  for (const { number } of nodes) {
    check(ends[number]?.code === 0, `machine ${number} trains to the end`, ends[number]?.output);
  }
  if (failures > 0) return;
  const expected = lossesOf(join(folder, 'alone'));
  const losses = lossesOf(join(folder, 'both'));
  const difference = Math.max(
    ...expected.map((loss, step) => Math.abs(losses[step] - loss) / Math.abs(loss)),
  );
  check(
    losses.length === expected.length && difference < 1e-10,
    `the losses of ${expected.length} steps are those of one process (largest relative difference ${difference.toExponential(1)})`,
    JSON.stringify({ expected, losses }),
  );
}

/** @param {string} config */
async function cutTheCable(config) {
  let cut = 0;
  const args = ['train', '-c', config, '-s', `runs=${join(folder, 'cut')}`, '-s', 'training.steps=1000000'];
  const launchers = startOnBoth(args, (output) => {
    if (cut !== 0 || !/^\[0\] step /m.test(output)) return;
    cut = performance.now();
    ip('-n', first.space, 'link', 'set', first.cable, 'down');
    setTimeout(killAll, 2 * patience * 1000).unref();
  });
  const timeout = `\\w+ \\(number \\d+ of the group '[^']+', rank # of 2\\) did not end within ${limit} s\\. `;
  const accounts = [
    '(Missing: rank 1; rank 1 (was last seen in \\w+ \\(number \\d+\\)|has begun nothing in this group)|All ranks have begun it); no sign of life from rank 1',
    `.*the store at ${first.address}:\\d+, has ended or its machine cannot be reached`,
  ];
  await Promise.all(
    launchers.map(async (launcher, node) => {
      const { code, output } = await launcher;
      const seconds = (performance.now() - cut) / 1000;
      const within = cut !== 0 && code !== 0 && seconds < patience;
      check(
        within,
        `machine ${node} ends ${seconds.toFixed(1)} s after the cut, with exit code ${code}`,
        output,
      );
      const account = new RegExp(`${timeout.replace('#', `${node}`)}${accounts[node]}`).exec(output)?.[0];
      check(account !== undefined, `and says: ${account}`, output);
    }),
  );
  for (const { number, space } of nodes) {
    // The kernel takes a moment to end what was killed.
    for (let look = 0; look < 20 && processesOf(space).length > 0; look++) await pause(100);
    const left = processesOf(space).map((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '),
    );
    check(left.length === 0, `machine ${number} has no process left`, left.join('\n'));
  }
}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    cleanUp();
    process.exit(1);
  });
}
try {
  const reason = obstacle();
  if (reason !== undefined) {
    console.log(`skipped: ${reason}`);
    process.exitCode = process.argv.includes('--require') ? 1 : 0;
  } else {
    const config = makeJob();
    await trainToTheEnd(config);
    await cutTheCable(config);
    process.exitCode = failures > 0 ? 1 : 0;
  }
} finally {
  cleanUp();
}
