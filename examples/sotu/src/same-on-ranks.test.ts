import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { listMpiruns } from '@fmoe/comm';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));

describeUnless(listMpiruns().length === 0 ? 'there is no mpirun' : undefined, 'the main job', () => {
  it('is the same on one process and on 4 ranks, and goes on from their checkpoint on 1, 2 and 3', () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--import', 'tsx', path('./same-on-ranks.ts')],
      { cwd: path('../../../'), encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(stdout.match(/ same$/gm), stdout).toHaveLength(4);
    expect(status).toBe(0);
  }, 300_000);
});
