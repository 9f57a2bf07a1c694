import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { completeEnvironment } from './environments.mjs';
import { silentLog } from './log.mjs';
import { ensureEnvironment, requireSpace } from './python-env.mjs';
import { temporaryFolder, writeFiles, writeProgram } from './testing.mjs';

/** @type {import('./python-env.mjs').Recipe} */
const recipe = { name: 'things', title: 'things', requirements: ['thing==1'], dependencies: false, bytes: 1 };

/** An installation that can be watched and made to fail half-way. */
function fakeInstall() {
  const state = { runs: 0, failing: false };
  /** @type {NonNullable<Parameters<typeof ensureEnvironment>[1]['install']>} */
  const install = async (_recipe, folder) => {
    state.runs += 1;
    writeFiles(folder, { 'lib/site-packages/thing.py': `run ${state.runs}` });
    if (state.failing) throw new Error('cut off');
    await new Promise((resolve) => setTimeout(resolve, 50));
    writeProgram(join(folder, 'bin/python'), 'exit 0');
    return { sitePackages: join(folder, 'lib/site-packages'), python: '3.12.0' };
  };
  return { state, install };
}

describe('ensureEnvironment', () => {
  it('installs once and then leaves the environment alone', async () => {
    const env = { FMOE_HOME: temporaryFolder() };
    const { state, install } = fakeInstall();
    const first = await ensureEnvironment(recipe, { env, log: silentLog, install });
    const second = await ensureEnvironment(recipe, { env, log: silentLog, install });
    expect(state.runs).toBe(1);
    expect(second).toEqual(first);
    expect(first.sitePackages).toBe(join(env.FMOE_HOME, 'envs/things/lib/site-packages'));
    expect(existsSync(join(first.sitePackages, 'thing.py'))).toBe(true);
  });

  it('leaves nothing that looks finished when it is cut off, and clears the remains next time', async () => {
    const env = { FMOE_HOME: temporaryFolder() };
    const envs = join(env.FMOE_HOME, 'envs');
    const { state, install } = fakeInstall();
    state.failing = true;
    await expect(ensureEnvironment(recipe, { env, log: silentLog, install })).rejects.toThrow('cut off');
    expect(completeEnvironment(join(envs, 'things'))).toBeUndefined();
    expect(readdirSync(envs)).toHaveLength(1);
    // A folder of that name without a marker, as an older or damaged set-up may leave it.
    writeFiles(envs, { 'things/lib/site-packages/thing.py': 'half' });
    state.failing = false;
    const record = await ensureEnvironment(recipe, { env, log: silentLog, install });
    expect(record.requirements).toEqual(recipe.requirements);
    expect(readdirSync(envs).filter((name) => name.startsWith('things'))).toHaveLength(2);
    expect(completeEnvironment(join(envs, 'things'))).toEqual(record);
  });

  it('starts anew when the versions asked for have changed', async () => {
    const env = { FMOE_HOME: temporaryFolder() };
    const { state, install } = fakeInstall();
    await ensureEnvironment(recipe, { env, log: silentLog, install });
    const newer = { ...recipe, requirements: ['thing==2'] };
    const record = await ensureEnvironment(newer, { env, log: silentLog, install });
    expect(record.requirements).toEqual(['thing==2']);
    expect(state.runs).toBe(2);
  });

  it('lets two set-ups at once wait for each other', async () => {
    const env = { FMOE_HOME: temporaryFolder() };
    const { state, install } = fakeInstall();
    /** @type {string[]} */
    const notes = [];
    /** @type {import('./log.mjs').Log} */
    const log = { ...silentLog, note: (text) => notes.push(text) };
    const both = [1, 2].map(() => ensureEnvironment(recipe, { env, log, install }));
    const [a, b] = await Promise.all(both);
    expect(a).toEqual(b);
    expect(state.runs).toBe(1);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toContain(`another set-up (process ${process.pid})`);
  });

  it('does not take an environment whose Python is gone', async () => {
    const env = { FMOE_HOME: temporaryFolder() };
    const { install } = fakeInstall();
    await ensureEnvironment(recipe, { env, log: silentLog, install });
    rmSync(join(env.FMOE_HOME, 'envs/things/bin/python'));
    expect(completeEnvironment(join(env.FMOE_HOME, 'envs/things'))).toBeUndefined();
  });
});

describe('requireSpace', () => {
  it('refuses a disk without room and says how much is needed and where', () => {
    const folder = temporaryFolder();
    const huge = { ...recipe, bytes: 1e18 };
    expect(() => requireSpace(folder, huge)).toThrow(/1000000000\.0 GB are needed in .*Remedy: .*FMOE_HOME/s);
    expect(() => requireSpace(folder, recipe)).not.toThrow();
  });
});
