import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SetupError } from './errors.mjs';
import { silentLog } from './log.mjs';
import { ensureMpis, findMpis } from './mpi.mjs';
import { temporaryFolder, writeProgram } from './testing.mjs';

/** A machine with the MPIs of these names below FMOE_HOME, and maybe one of the system. */
function machine(/** @type {string[]} */ brought, /** @type {string} */ banner = '') {
  const root = temporaryFolder();
  const bin = join(root, 'bin');
  const env = { PATH: bin, FMOE_HOME: join(root, 'home') };
  const place = (/** @type {string} */ family) => join(env.FMOE_HOME, `envs/mpi-${family}/bin`);
  const install = (/** @type {string} */ family) => {
    const names = ['mpicc', 'mpirun', ...(family === 'mpich' ? ['mpicc_abi'] : [])];
    for (const name of names) writeProgram(join(place(family), name), 'exit 0');
  };
  for (const family of brought) install(family);
  if (banner !== '') {
    writeProgram(join(bin, 'mpicc'), banner);
    writeProgram(join(bin, 'mpirun'), 'exit 0');
  }
  return { bin, env, place, install };
}

const openMpiBanner = 'echo "mpicc: Open MPI 4.1.4 (Language: C)"';
const families = (/** @type {import('./mpi.mjs').Mpi[]} */ mpis) =>
  mpis.map(({ family, source }) => [family, source]);

describe('findMpis', () => {
  it('takes that of the system, and knows its family', () => {
    const { bin, env } = machine(['openmpi'], openMpiBanner);
    expect(findMpis(env)).toEqual([
      { family: 'openmpi', source: 'system', mpicc: join(bin, 'mpicc'), mpirun: join(bin, 'mpirun') },
    ]);
    expect(families(findMpis(machine([], 'exit 1').env))).toEqual([['mpich', 'system']]);
  });

  it('takes what set-up brought, or what FMOE_MPI names', () => {
    const { env, place } = machine(['openmpi', 'mpich']);
    const brought = ['openmpi', 'mpich'].map((family) => [family, 'FMOE_HOME']);
    expect(families(findMpis(env))).toEqual(brought);
    expect(families(findMpis(machine(['mpich']).env))).toEqual([['mpich', 'FMOE_HOME']]);
    // The compiler for the ABI that all MPIs of that standard share.
    expect(findMpis({ ...env, FMOE_MPI: 'mpich' })[0]?.mpicc).toBe(join(place('mpich'), 'mpicc_abi'));
    expect(findMpis({ ...env, FMOE_MPI: 'none' })).toEqual([]);
    expect(findMpis(machine([]).env)).toEqual([]);
  });

  it('puts the system’s beside one that was brought', () => {
    const { env } = machine(['mpich'], openMpiBanner);
    expect(families(findMpis({ ...env, FMOE_MPI: 'mpich, openmpi' }))).toEqual([
      ['mpich', 'FMOE_HOME'],
      ['openmpi', 'system'],
    ]);
  });

  it('refuses a name that is none', () => {
    expect(() => findMpis({ ...machine([]).env, FMOE_MPI: 'openmpi,lam' })).toThrow(/FMOE_MPI.*"lam"/);
  });
});

describe('ensureMpis', () => {
  it('brings what is wanted and missing, once', async () => {
    const { env, install } = machine([]);
    /** @type {string[]} */
    const asked = [];
    const ensure = async (/** @type {{ name: string }} */ { name }) => {
      asked.push(name);
      install(name.replace('mpi-', ''));
      return { name, requirements: [], sitePackages: '', python: '' };
    };
    const both = { env: { ...env, FMOE_MPI: 'openmpi,mpich' }, log: silentLog, ensure };
    expect(families(await ensureMpis(both))).toEqual([
      ['openmpi', 'FMOE_HOME'],
      ['mpich', 'FMOE_HOME'],
    ]);
    expect(asked).toEqual(['mpi-openmpi', 'mpi-mpich']);
  });

  it('asks for nothing where the system has it, or where none is wanted', async () => {
    const ensure = async () => {
      throw new Error('nothing is to be installed');
    };
    const { env } = machine([], openMpiBanner);
    expect(families(await ensureMpis({ env, log: silentLog, ensure }))).toEqual([['openmpi', 'system']]);
    const none = { ...machine([]).env, FMOE_MPI: 'none' };
    expect(await ensureMpis({ env: none, log: silentLog, ensure })).toEqual([]);
  });

  it('does without when it cannot be had', async () => {
    const ensure = async () => {
      throw new SetupError('no network');
    };
    expect(await ensureMpis({ env: machine([]).env, log: silentLog, ensure })).toEqual([]);
  });
});
