/** What goes wrong on one rank ends on all of them, soon, with its reason, and leaves nothing behind. */
import { describeUnless } from '@fmoe/torch/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  isRunning,
  leftSharedMemory,
  missingMpi,
  type RanksOptions,
  type RanksResult,
  runRanks,
  sharedMemory,
} from './support/mpi.js';

interface Failure {
  code: string;
  message: string;
  seconds: number;
}

for (const family of ['openmpi', 'mpich'] as const) {
  describeUnless(missingMpi(family), `a fault over ${family}`, () => {
    let segments: string[];
    const pids: number[] = [];
    beforeAll(() => {
      segments = sharedMemory();
    });
    afterAll(async () => {
      // The kernel may take a moment to end what was killed.
      for (let i = 0; i < 50 && pids.some(isRunning); i++) await new Promise((done) => setTimeout(done, 100));
      expect(pids.filter(isRunning)).toEqual([]);
      const left = (): string[] => leftSharedMemory().filter((name) => !segments.includes(name));
      // Another test's ranks make a segment before they map it.
      for (let i = 0; i < 50 && left().length > 0; i++) await new Promise((done) => setTimeout(done, 100));
      expect(left()).toEqual([]);
    });

    const run = async (
      fault: string,
      worldSize: number,
      options: RanksOptions = {},
    ): Promise<RanksResult> => {
      const result = await runRanks(family, worldSize, 'fault.ts', {
        args: [fault],
        timeoutSeconds: 60,
        ...options,
      });
      for (const { pid } of result.reports.values()) pids.push(pid);
      return result;
    };
    const failure = (result: RanksResult, rank: number): Failure =>
      result.reports.get(rank)?.value as Failure;

    it('of a killed rank ends all', async () => {
      let killed = 0;
      const result = await run('killed', 3, {
        whenStarted: () => {
          killed = performance.now();
        },
      });
      expect(result.code === 0 && result.signal === null).toBe(false);
      expect(performance.now() - killed).toBeLessThan(10_000);
    });

    it('of a rank that never comes ends in time and names it', async () => {
      const result = await run('missing', 3);
      expect(result.code).not.toBe(0);
      const told = [0, 2].map((rank) => failure(result, rank)).filter((value) => value !== undefined);
      expect(told.length).toBeGreaterThan(0);
      for (const { code, message, seconds } of told) {
        expect(code).toBe('ERR_COMM');
        expect(message).toMatch(
          /all_reduce_ \(number 2 of the group 'world', rank \d of 3\) did not end within 2 s/,
        );
        expect(message).toMatch(/Missing: rank 1; rank 1 was last seen in all_reduce_ \(number 1\)/);
        expect(seconds).toBeGreaterThan(1.9);
        expect(seconds).toBeLessThan(6);
      }
    });

    it('of a rank that never comes to a group’s operation rejects the promise', async () => {
      const result = await run('missing in a group', 2);
      expect(result.code).not.toBe(0);
      expect(failure(result, 0)).toMatchObject({
        code: 'ERR_COMM',
        message: expect.stringMatching(
          /'the experts'.*did not end within 2 s. Missing: rank 1; rank 1 has begun nothing/,
        ),
      });
    });

    it('of a message that is never sent names the sender', async () => {
      const result = await run('nothing received', 2);
      expect(result.code).not.toBe(0);
      expect(failure(result, 0).message).toMatch(
        /receive_ from rank 1 \(in the group 'world'.*within 2 s. The other side; rank 1/,
      );
    });

    it('of another tensor size ends as an error', async () => {
      const result = await run('mismatch', 3);
      expect(result.code).not.toBe(0);
      expect(result.seconds).toBeLessThan(20);
      const told = [...result.reports.values()].map(({ value }) => value as Failure);
      expect(told.some(({ code }) => code === 'ERR_COMM')).toBe(true);
      expect(
        told.some(({ message }) => /all_to_all .*MPI: .*ranks .*agree on the sizes/s.test(message)),
      ).toBe(true);
    });

    it('of other arguments is found by FMOE_COMM_DEBUG, on every rank, with the rank that differs', async () => {
      const result = await run('mismatches', 3, { env: { FMOE_COMM_DEBUG: '1' } });
      expect(result.code, result.stderr).toBe(0);
      expect(result.reports.size).toBe(3);
      const patterns = [
        /float32 \[4\].*float32 \[3\]|float32 \[3\].*float32 \[4\]/,
        /float64 \[3\].*float32 \[3\]|float32 \[3\].*float64 \[3\]/,
        /all_reduce_.*; rank 1 calls barrier/,
        /rank 1 calls all_reduce_/,
        /rank 1 calls broadcast_/,
        /rank 1 sends 2 rows to rank 0, which expects 1/,
        /rank 1 counts rows of \[2, 1, 1\], rank 0 of \[1, 1, 1\]/,
      ];
      for (const { value } of result.reports.values()) {
        const messages = value as string[];
        for (const [index, pattern] of patterns.entries()) {
          expect(messages[index]).toMatch(/^ERR_COMM .*the ranks of the group 'world' do not agree/);
          expect(messages[index]).toMatch(pattern);
        }
      }
    });

    it('of other arguments is found without it by the next rank in a reduction, a gathering or a broadcast', async () => {
      const result = await run('disagreements', 3);
      expect(result.reports.size, result.stderr).toBe(3);
      const patterns: [rank1: RegExp, rank2: RegExp][] = [
        [
          /rank 0 calls all_reduce_ \(number 1\) of 3 float32.*, this rank .* of 4 float32/,
          /of 4 float32.* of 3/,
        ],
        [/rank 0 calls all_reduce_ .* of 80000 float32.* of 40000/, /of 40000 float32.* of 80000/],
        [/rank 0 calls .* of 3 float32.* of 3 int32/, /rank 1 calls .* of 3 int32.* of 3 float32/],
        [/setting 0, this rank .* setting 4/, /setting 4, this rank .* setting 0/],
        [/reduce_scatter .* and other row counts/, /reduce_scatter .* and other row counts/],
        [/all_gather .* and other row counts/, /all_gather .* and other row counts/],
        [/rows of 5 float32.* rows of 6/, /rows of 6 float32.* rows of 5/],
        [/broadcast_ .* of 3 .* of 4/, /broadcast_ .* of 4 .* of 3/],
        [/broadcast_ .* setting 0, this rank .* setting 1/, /setting 1, this rank .* setting 0/],
        [/calls all_reduce_ .*, this rank barrier/, /calls barrier .*, this rank all_reduce_/],
      ];
      for (const rank of [1, 2]) {
        const messages = result.reports.get(rank)!.value as string[];
        expect(messages.length).toBe(patterns.length);
        for (const [index, pair] of patterns.entries()) {
          expect(messages[index]).toMatch(/^ERR_COMM .*the ranks do not agree: rank [01] calls/);
          expect(messages[index]).toMatch(pair[rank - 1]!);
        }
      }
    });

    it('of an exception ends all ranks and shows it', async () => {
      const result = await run('throws', 3);
      expect(result.code).not.toBe(0);
      expect(result.seconds).toBeLessThan(20);
      expect(result.stderr + result.stdout).toMatch(/rank 1 of 3 failed:\s+Error: the data ran out/);
    });

    it.each(['SIGINT', 'SIGTERM'] as const)('of %s to the launcher ends all ranks', async (signal) => {
      let sent = 0;
      await run('signalled', 2, {
        whenStarted: (_, launcher) => {
          sent = performance.now();
          process.kill(launcher, signal);
        },
      });
      expect(performance.now() - sent).toBeLessThan(10_000);
    });

    it('of a signal that the program handles ends its wait', async () => {
      let sent = 0;
      const result = await run('interrupted', 2, {
        whenStarted: async (started) => {
          await new Promise((done) => setTimeout(done, 300));
          sent = performance.now();
          process.kill(started.get(0)!, 'SIGTERM');
        },
      });
      expect(performance.now() - sent).toBeLessThan(10_000);
      expect(failure(result, 0).message).toMatch(/all_reduce_ .* was interrupted by SIGTERM/);
    });
  });
}
