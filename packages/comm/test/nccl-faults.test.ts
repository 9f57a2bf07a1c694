/** What goes wrong on one rank over NCCL ends on all of them, soon, with its reason, and leaves no process behind. */
import { fileURLToPath } from 'node:url';
import { describeUnless } from '@fmoe/torch/testing';
import { afterAll, expect, it } from 'vitest';
import { launchTestRanks, type RankRun, reportsOf, testTransports } from '../src/testing/index.js';
import { isRunning } from './support/mpi.js';

interface Report<Value> {
  rank: number;
  pid: number;
  value?: Value;
}

interface Failure {
  code: string;
  message: string;
  seconds: number;
}

const program = fileURLToPath(new URL('./ranks/fault.ts', import.meta.url));
const transport = testTransports().find(({ backend }) => backend === 'nccl')!;

describeUnless(transport.missing, 'a fault over NCCL', () => {
  const pids: number[] = [];
  afterAll(async () => {
    for (let i = 0; i < 50 && pids.some(isRunning); i++) await new Promise((done) => setTimeout(done, 100));
    expect(pids.filter(isRunning)).toEqual([]);
  });

  async function run(
    fault: string,
    ranks: number,
    env: Readonly<Record<string, string>> = {},
  ): Promise<RankRun> {
    const result = await launchTestRanks(transport, ranks, program, {
      args: [fault],
      env,
      timeoutSeconds: 60,
    });
    for (const { pid } of reportsOf<Report<unknown>>(result)) pids.push(pid);
    return result;
  }
  const failures = (result: RankRun): Failure[] =>
    reportsOf<Report<Failure>>(result).flatMap(({ value }) => value ?? []);

  it('of a killed rank ends all and names it', async () => {
    const result = await run('killed', 3);
    expect(result.failed, result.log).toMatchObject({ rank: 1 });
    expect(reportsOf(result).length, result.log).toBeGreaterThanOrEqual(3);
    expect(result.seconds, result.log).toBeLessThan(45);
  }, 90_000);

  it('of a rank that never comes ends in time and names it', async () => {
    const result = await run('missing', 3);
    expect(result.exitCode, result.log).toBe(1);
    expect(failures(result).length, result.log).toBeGreaterThan(0);
    for (const { code, message, seconds } of failures(result)) {
      expect(code, result.log).toBe('ERR_COMM');
      expect(message).toMatch(
        /all_reduce_ \(number 3 of the group 'world', rank \d of 3\) did not end within 2 s/,
      );
      expect(message).toMatch(/Missing: rank 1; rank 1 was last seen in barrier \(number 2\)/);
      expect(seconds).toBeGreaterThan(1.9);
      expect(seconds).toBeLessThan(10);
    }
  }, 90_000);

  it.each([
    [
      'missing in a group',
      /'the experts'.*did not end within 2 s\. Missing: rank 1; rank 1 has begun nothing/,
    ],
    ['nothing received', /receive_ from rank 1 \(in the group 'world'.*within 2 s\. The other side; rank 1/],
  ])(
    'of a rank that never comes ends while an operation is begun: %s',
    async (fault, pattern) => {
      const result = await run(fault, 2);
      expect(result.exitCode, result.log).toBe(1);
      expect(failures(result), result.log).toMatchObject([
        { code: 'ERR_COMM', message: expect.stringMatching(pattern) },
      ]);
    },
    90_000,
  );

  it('of other arguments is found by FMOE_COMM_DEBUG, on every rank, with the rank that differs', async () => {
    const result = await run('mismatches', 3, { FMOE_COMM_DEBUG: '1' });
    expect(result.exitCode, result.log).toBe(0);
    const told = reportsOf<Report<string[]>>(result).map(({ value }) => value ?? []);
    expect(told.length).toBe(3);
    for (const [first, ...others] of told) {
      expect(first).toMatch(/float32 \[4\].*float32 \[3\]|float32 \[3\].*float32 \[4\]/);
      for (const message of [first, ...others]) {
        expect(message).toMatch(/^ERR_COMM .*the ranks of the group 'world' do not agree/);
      }
    }
  }, 90_000);

  it('of an exception ends all ranks and shows it', async () => {
    const result = await run('throws', 3);
    expect(result.failed, result.log).toMatchObject({ rank: 1, code: 1 });
    expect(result.error).toMatch(/rank 1 of 3 failed:/);
    expect(result.error).toMatch(/Error: the data ran out/);
  }, 90_000);
});
