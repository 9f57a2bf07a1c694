import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { doctor, formatDoctor } from './doctor.mjs';
import { temporaryFolder, writeFakeTorch, writeFiles, writeProgram } from './testing.mjs';

/** A machine with nothing but a folder of programs and a package that is not built. */
function machine() {
  const root = temporaryFolder();
  const dir = join(root, 'sample');
  writeFiles(dir, {
    'package.json': JSON.stringify({ name: '@fmoe/sample' }),
    'native/CMakeLists.txt': 'cmake_minimum_required(VERSION 3.18)',
  });
  const env = { FMOE_HOME: join(root, 'home'), FMOE_TORCH_VARIANT: 'cpu', PATH: join(root, 'bin') };
  return { root, dir, env, packages: [{ name: '@fmoe/sample', dir }] };
}

/** @param {ReturnType<typeof doctor>} rows */
const byItem = (rows) => new Map(rows.map((row) => [row.item, row]));

describe('doctor', () => {
  it('gives a remedy for each gap', () => {
    const { env, packages } = machine();
    const rows = doctor({ env, packages });
    for (const row of rows) expect(row.remedy === '', row.item).toBe(row.status === 'ok');
    const items = byItem(rows);
    expect(items.get('Python')).toMatchObject({ status: 'missing' });
    expect(items.get('C++ compiler')).toMatchObject({ status: 'missing' });
    expect(items.get('libtorch')).toMatchObject({ status: 'missing', found: 'none usable' });
    expect(items.get('libtorch')?.remedy).toContain(join(env.FMOE_HOME, 'envs/torch-2.11.0-cpu'));
    expect(items.get('native part of @fmoe/sample')).toMatchObject({ status: 'missing', found: 'not built' });
    expect(items.get('CMake')?.status).toBe('optional');
    expect(items.get('MPI')?.status).toBe('optional');
    for (const item of ['Node', 'npm', 'GPU and driver', 'CUDA toolkit', 'NCCL'])
      expect(items.has(item)).toBe(true);
  });

  it('reports what is there, with its version', () => {
    const { root, env, packages } = machine();
    writeFakeTorch(join(root, 'torch'), '2.10.0');
    writeProgram(join(root, 'bin/mpirun'), 'echo "mpirun (Open MPI) 5.0.11"');
    writeProgram(join(root, 'bin/mpicc'), 'echo "mpicc: Open MPI 5.0.11 (Language: C)"');
    writeProgram(join(root, 'bin/cmake'), 'echo "cmake version 3.30.1"');
    const items = byItem(doctor({ env: { ...env, LIBTORCH: join(root, 'torch') }, packages }));
    expect(items.get('libtorch')).toMatchObject({ status: 'ok', remedy: '' });
    expect(items.get('libtorch')?.found).toBe(
      `2.10.0, CPU only, not the version tested (LIBTORCH: ${join(root, 'torch')})`,
    );
    expect(items.get('MPI')?.found).toBe(`openmpi 5.0.11 (system: ${join(root, 'bin/mpirun')})`);
    expect(items.get('CMake')?.found).toContain('3.30.1');
  });

  it('tells a build against another libtorch from one out of date', () => {
    const { root, dir, env, packages } = machine();
    writeFakeTorch(join(root, 'torch'), '2.11.0');
    const record = { torchVersion: '2.10.0', torchRoot: '/x', outputs: ['libsample.so'] };
    writeFiles(dir, { 'native/build/libsample.so': '', 'native/build/build.json': JSON.stringify(record) });
    const row = () =>
      byItem(doctor({ env: { ...env, LIBTORCH: join(root, 'torch') }, packages })).get(
        'native part of @fmoe/sample',
      );
    expect(row()).toMatchObject({ status: 'missing', remedy: 'npx fmoe-setup' });
    expect(row()?.found).toBe('built against libtorch 2.10.0, found is 2.11.0');
    const same = JSON.stringify({ ...record, torchVersion: '2.11.0' });
    writeFiles(dir, { 'native/build/build.json': same });
    expect(row()?.found).toBe('built against libtorch 2.11.0, out of date');
  });
});

describe('formatDoctor', () => {
  it('lays out a table and lists the remedies below it', () => {
    const text = formatDoctor([
      { item: 'Node', found: '20.19.0', status: 'ok', remedy: '' },
      { item: 'g++', found: 'none', status: 'missing', remedy: 'install it' },
    ]);
    expect(text.split('\n')).toEqual([
      'item  state    found',
      '----  -------  -------',
      'Node  ok       20.19.0',
      'g++   missing  none',
      '',
      'What to do about the gaps:',
      '  g++: install it',
    ]);
  });
});
