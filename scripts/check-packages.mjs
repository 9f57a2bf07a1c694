// Installs each package as a stranger would: packed tarballs in an empty folder outside the checkout, with only the packages
// below it and an empty FMOE_HOME, then `npx fmoe-setup` and a small program.
//
//   node scripts/check-packages.mjs [package ...]      default: all, lowest first
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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

const log = createLog();
const work = mkdtempSync(join(tmpdir(), 'fmoe-packages-'));
const tarballs = join(work, 'tarballs');
mkdirSync(tarballs);
const names = /** @type {(keyof typeof programs)[]} */ (Object.keys(programs));
const chosen = process.argv.length > 2 ? names.filter((name) => process.argv.includes(name)) : names;

/** @param {string} program @param {string[]} args @param {string} cwd @param {NodeJS.ProcessEnv} env */
const run = (program, args, cwd, env = process.env) =>
  execFileSync(program, args, { cwd, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

try {
  for (const name of names)
    run('npm', ['pack', '--silent', '--pack-destination', tarballs], join(root, 'packages', name));
  for (const name of chosen) {
    const below = names.slice(0, names.indexOf(name) + 1);
    const files = readdirSync(tarballs)
      .filter((file) => below.some((layer) => file.startsWith(`fmoe-${layer}-`)))
      .map((file) => join(tarballs, file));
    const folder = join(work, name);
    mkdirSync(folder);
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
    const env = { ...process.env, FMOE_HOME: join(work, `home-${name}`) };
    await log.step(`@fmoe/${name} with ${below.length - 1} packages below it`, async () => {
      run('npm', ['install', '--no-audit', '--no-fund', ...files], folder, env);
      run('npx', ['fmoe-setup'], folder, env);
    });
    const { lines, prints } = programs[name];
    if (lines) writeFileSync(join(folder, 'program.js'), lines.join('\n'));
    const printed = lines
      ? run('node', ['program.js'], folder, env)
      : run('npx', ['fmoe', 'doctor'], folder, env);
    if (!printed.includes(prints)) throw new Error(`@fmoe/${name} printed ${printed}, expected ${prints}`);
    console.log(`    @fmoe/${name}: ${lines ? printed.trim() : 'fmoe doctor ran'}`);
    rmSync(join(work, `home-${name}`), { recursive: true, force: true });
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
