// Installs each package as a stranger would: packed tarballs in an empty folder outside the checkout, with only the packages
// below it and an empty FMOE_HOME, then `npx fmoe-setup` and a small program.
//
//   node scripts/check-packages.mjs [package ...]      default: all, lowest first, then the examples
//
// `examples` installs the two plug-ins of examples/ beside all packages, runs their tests there, and trains with them by name.
// FMOE_CHECK_HOME names a filled FMOE_HOME to use in the place of an empty one.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog } from '../packages/torch/setup/index.mjs';
import { root } from './workspace.mjs';

/** The layers, lowest first, each with a program that uses it and what the program prints. */
const programs = {
  torch: {
    lines: [
      "import * as torch from '@fmoe/torch';",
      'const x = torch.tensor([[1, 2], [3, 4]]);',
      'console.log(x.matmul(x).toArray().flat().join());',
    ],
    prints: '7,10,15,22',
  },
  kernels: {
    lines: [
      "import { routePlan } from '@fmoe/kernels';",
      "import { tensor } from '@fmoe/torch';",
      "console.log(routePlan(tensor([[1, 0], [1, -1]], { dtype: 'int64' }), 2).counts.toArray().join());",
    ],
    prints: '1,2',
  },
  comm: {
    lines: [
      "import { LocalGroup } from '@fmoe/comm';",
      "import { ones } from '@fmoe/torch';",
      'console.log(new LocalGroup().allToAll(ones([2]), [2], [2]).toArray().join());',
    ],
    prints: '1,1',
  },
  layers: {
    lines: [
      "import { FMoETransformerMLP } from '@fmoe/layers';",
      "import { ones } from '@fmoe/torch';",
      'console.log(new FMoETransformerMLP({ numExpert: 4, dModel: 8, dHidden: 16, topK: 2 }).call(ones([3, 8])).shape.join());',
    ],
    prints: '3,8',
  },
  models: {
    lines: [
      "import { TransformerXL } from '@fmoe/models/transformer-xl';",
      "import { zeros } from '@fmoe/torch';",
      "const ids = zeros([4, 1], { dtype: 'int64' });",
      'const model = new TransformerXL({ nToken: 5, nLayer: 1, nHead: 2, dModel: 8, dInner: 16 });',
      'console.log(model.forward(ids, ids).loss.shape.join());',
    ],
    prints: '4,1',
  },
  cli: { lines: null, prints: 'libtorch' },
};

/** A training of seconds. */
const tinyConfig = {
  name: 'tiny',
  device: 'cpu',
  data: { kind: 'text', train: 'train.txt', valid: 'valid.txt', test: 'test.txt' },
  model: {
    kind: 'transformer-xl',
    nLayer: 1,
    nHead: 2,
    dModel: 16,
    dInner: 16,
    memLen: 8,
    moe: { numExpert: 4 },
  },
  training: { steps: 4, batchSize: 2, tgtLen: 8, optimizer: { kind: 'adam', lr: 1e-2 } },
  evaluation: { batchSize: 2 },
  logging: { every: 2 },
};

/** The plug-ins: packages under examples/, with an option of `fmoe train` that names each. */
const plugins = {
  'hash-gate': '--gate=@fmoe-examples/hash-gate#HashGate',
  'kan-expert': '--expert=@fmoe-examples/kan-expert#KANExpert',
};

const log = createLog();
const work = mkdtempSync(join(tmpdir(), 'fmoe-packages-'));
const tarballs = join(work, 'tarballs');
mkdirSync(tarballs);
const names = /** @type {(keyof typeof programs)[]} */ (Object.keys(programs));
const chosen = process.argv.length > 2 ? names.filter((name) => process.argv.includes(name)) : names;

/** @param {string} program @param {string[]} args @param {string} cwd @param {NodeJS.ProcessEnv} env */
const run = (program, args, cwd, env = process.env) =>
  execFileSync(program, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

/** An empty project, in the place of the one before, for some tarballs. @param {string[]} files @param {string[]} others */
const project = (files, others = []) => {
  const folder = join(work, 'project');
  const home = join(work, 'home');
  for (const used of [folder, home]) rmSync(used, { recursive: true, force: true });
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  const env = { ...process.env, FMOE_HOME: process.env['FMOE_CHECK_HOME'] ?? home };
  const install = async () => {
    run('npm', ['install', '--no-audit', '--no-fund', ...files, ...others], folder, env);
    run('npx', ['fmoe-setup'], folder, env);
  };
  return { folder, env, install };
};

/** @param {readonly string[]} layers */
const tarballsOf = (layers) =>
  readdirSync(tarballs)
    .filter((file) => layers.some((layer) => file.startsWith(`fmoe-${layer}-`)))
    .map((file) => join(tarballs, file));

async function checkExamples() {
  const files = tarballsOf([...names, ...Object.keys(plugins).map((name) => `examples-${name}`)]);
  const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const { folder, env, install } = project(files, [`vitest@${devDependencies.vitest}`]);
  await log.step('the examples beside all packages', install);
  for (const name of Object.keys(plugins)) {
    // Vitest runs nothing inside node_modules: the tests are copied, and find what they test by its name.
    cpSync(join(folder, 'node_modules/@fmoe-examples', name, 'test'), join(folder, 'test', name), {
      recursive: true,
    });
  }
  run('npx', ['vitest', 'run', '--pool=forks'], folder, env);
  const text = Array.from({ length: 400 }, (_, i) => `line ${i % 37}`).join('\n');
  for (const part of ['train', 'valid', 'test']) writeFileSync(join(folder, `${part}.txt`), text);
  writeFileSync(join(folder, 'tiny.json'), JSON.stringify(tinyConfig));
  const printed = run('npx', ['fmoe', 'train', '-c', 'tiny.json', ...Object.values(plugins)], folder, env);
  for (const expected of [/#KANExpert, top-2, .*#HashGate gate/, /test {2}bits per character/]) {
    if (!expected.test(printed)) throw new Error(`fmoe train printed ${printed}, expected ${expected}`);
  }
  console.log('    the examples pass their tests and train by name');
}

try {
  for (const name of names)
    run('npm', ['pack', '--silent', '--pack-destination', tarballs], join(root, 'packages', name));
  for (const name of Object.keys(plugins))
    run('npm', ['pack', '--silent', '--pack-destination', tarballs], join(root, 'examples', name));
  for (const name of chosen) {
    const below = names.slice(0, names.indexOf(name) + 1);
    const { folder, env, install } = project(tarballsOf(below));
    await log.step(`@fmoe/${name} with ${below.length - 1} packages below it`, install);
    const { lines, prints } = programs[name];
    if (lines) writeFileSync(join(folder, 'program.js'), lines.join('\n'));
    const printed = lines
      ? run('node', ['program.js'], folder, env)
      : run('npx', ['fmoe', 'doctor'], folder, env);
    if (!printed.includes(prints)) throw new Error(`@fmoe/${name} printed ${printed}, expected ${prints}`);
    console.log(`    @fmoe/${name}: ${lines ? printed.trim() : 'fmoe doctor ran'}`);
  }
  if (process.argv.length === 2 || process.argv.includes('examples')) await checkExamples();
} finally {
  rmSync(work, { recursive: true, force: true });
}
