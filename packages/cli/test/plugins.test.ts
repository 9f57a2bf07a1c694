import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { capture } from './capture.js';
import { makeWorkspace } from './workspace.js';

const { config, run } = makeWorkspace();
const example = (path: string) => fileURLToPath(new URL(`../../../examples/${path}`, import.meta.url));
const gate = `${example('hash-gate/src/index.ts')}#HashGate`;
const expert = `${example('kan-expert/src/index.ts')}#KANExpert`;

describe('fmoe train with a gate and an expert of other packages', () => {
  it('trains, and evaluates and generates from what the run remembers', async () => {
    const options = ['--gate', gate, '--expert', expert, '-s', 'model.moe.gateOptions={"planes":5}'];
    const trained = await capture('train', '-c', config, ...options);
    expect(trained).toMatchObject({ code: 0, error: '' });
    expect(trained.out).toMatch(/4 experts .*#KANExpert, top-2, .*#HashGate gate/);
    const saved = JSON.parse(readFileSync(join(run, 'config.json'), 'utf8'));
    expect(saved.model.moe).toMatchObject({ gate, expert, gateOptions: { planes: 5 } });
    const lines = readFileSync(join(run, 'metrics.jsonl'), 'utf8').trim().split('\n');
    const train = lines.map((line) => JSON.parse(line)).filter(({ kind }) => kind === 'train');
    expect(train.at(-1).expertLoad[0]).toHaveLength(4);
    expect(train.at(-1).droppedShare).toEqual([0]);
    expect(await capture('eval', run)).toMatchObject({ code: 0, error: '' });
    expect(await capture('generate', run, '--length', '5')).toMatchObject({ code: 0, error: '' });
  });

  it.each([
    [
      'a gate that is not exported',
      ['--gate', gate.replace('#HashGate', '#Hash')],
      /exports no class or function Hash; it has HashGate/,
    ],
    [
      'a package that is not installed',
      ['--expert', 'no-such-package#Expert'],
      /model\.moe\.expert: no-such-package does not load/,
    ],
    [
      'no export',
      ['--gate', 'no-such-package'],
      /'model\.moe\.gate'.*expected one of .*naive.*or package#export/,
    ],
    [
      'an option that the gate refuses',
      ['--gate', gate, '-s', 'model.moe.gateOptions={"planes":99}'],
      /ERR_ARGUMENT: HashGate: planes/,
    ],
    [
      'an option that the gate does not have',
      ['--gate', gate, '-s', 'model.moe.gateOptions={"plane":9}'],
      /ERR_ARGUMENT: HashGate: unknown option 'plane'/,
    ],
  ])('says what is wrong with %s', async (_, options, message) => {
    const { code, error } = await capture('train', '-c', config, '--overwrite', ...options);
    expect(code).toBe(1);
    expect(error).toMatch(message);
  });
});
