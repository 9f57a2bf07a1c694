/** fault.ts <fault>: something goes wrong on rank 1; every other rank reports what it was told, and ends as a program would. */
import { setTimeout as delay } from 'node:timers/promises';
import type { FmoeError } from '@fmoe/torch';
import type { ProcessGroup } from '../../src/index.js';
import { joinTestRanks } from '../../src/testing/index.js';
import { torch } from './cases.js';
import { report } from './report.js';

const fault = process.argv[2]!;
const { world } = joinTestRanks();
const { rank, size } = world;
const isFaulty = rank === 1;
const forever = 600_000;

/** Reports the error, and throws it as a program that does not catch it would. */
function reported<Result>(body: () => Result): Result {
  const begin = performance.now();
  try {
    return body();
  } catch (error) {
    const { code, message } = error as FmoeError;
    report(rank, { code, message, seconds: (performance.now() - begin) / 1000 });
    throw error;
  }
}

/** Over NCCL the stream of the GPU waits, and the program hears of a failure from the next operation, here a barrier. */
const sum = (group: ProcessGroup = world): void => {
  group.allReduce_(torch.ones([1000]));
  if (group.backend === 'nccl') {
    torch.cuda.synchronize();
    group.barrier();
  }
};

/** Each mismatch throws on every rank, so the next can follow. */
function mismatches(): void {
  const rows = Array.from({ length: size }, () => 1);
  const more = rows.map((count, member) => (member === 0 ? count + 1 : count));
  const bodies = [
    () => world.allReduce_(torch.zeros([isFaulty ? 4 : 3])),
    () => world.allReduce_(torch.zeros([3], { dtype: isFaulty ? 'float64' : 'float32' })),
    () => (isFaulty ? world.barrier() : world.allReduce_(torch.zeros([3]))),
    () => world.allReduce_(torch.zeros([3]), isFaulty ? 'max' : 'sum'),
    () => world.broadcast_(torch.zeros([3]), isFaulty ? 1 : 0),
    () =>
      isFaulty
        ? world.allToAll(torch.zeros([size + 1]), more, rows)
        : world.allToAll(torch.zeros([size]), rows, rows),
    () => world.allGather(torch.zeros([1]), isFaulty ? more : rows),
  ];
  const messages = bodies.map((body) => {
    try {
      body();
      return 'no error';
    } catch (error) {
      const { code, message } = error as FmoeError;
      return `${code} ${message}`;
    }
  });
  sum();
  report(rank, messages);
}

/** Each in a group of its own, as one that failed is of no more use. What rank 0 gets, which another one is before, is not said. */
function disagreements(): void {
  const rows = Array.from({ length: size }, () => 2);
  const more = rows.map((count, member) => (member === 0 ? count + 1 : count));
  const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b);
  const bodies: ((group: ProcessGroup) => unknown)[] = [
    (group) => group.allReduce_(torch.ones([isFaulty ? 4 : 3])),
    (group) => group.allReduce_(torch.ones([isFaulty ? 40_000 : 80_000])),
    (group) => group.allReduce_(torch.ones([3], { dtype: isFaulty ? 'int32' : 'float32' })),
    (group) => group.allReduce_(torch.ones([3]), isFaulty ? 'max' : 'sum'),
    (group) => group.reduceScatter(torch.ones([sum(isFaulty ? more : rows), 5]), isFaulty ? more : rows),
    (group) => group.allGather(torch.ones([2]), isFaulty ? more : rows),
    (group) => group.allGather(torch.ones([2, isFaulty ? 6 : 5]), rows),
    (group) => group.broadcast_(torch.ones([isFaulty ? 4 : 3]), 0),
    (group) => group.broadcast_(torch.ones([3]), isFaulty ? 1 : 0),
    (group) => (isFaulty ? group.barrier() : group.allReduce_(torch.ones([3]))),
  ];
  const messages = bodies.map((body, index) => {
    const group = world.split(0, 0, `group ${index}`)!;
    group.timeout = 2;
    try {
      body(group);
      return 'no error';
    } catch (error) {
      const { code, message } = error as FmoeError;
      return `${code} ${message}`;
    } finally {
      world.barrier();
    }
  });
  report(rank, messages);
  world.barrier();
  // What was given up is still under way.
  process.exit(3);
}

const faults: Record<string, () => void | Promise<void>> = {
  async killed() {
    report(rank);
    world.barrier();
    if (isFaulty) process.kill(process.pid, 'SIGKILL');
    reported(sum);
    await delay(forever);
  },
  async missing() {
    sum();
    world.timeout = 2;
    // Alive, but elsewhere.
    if (isFaulty) await delay(forever);
    reported(sum);
  },
  async 'missing in a group'() {
    const group = world.split(0, 0, 'the experts')!;
    group.timeout = 2;
    if (isFaulty) await delay(forever);
    // Over NCCL the beginning waits for the others, the first time.
    const work = async (): Promise<unknown> => group.startAllReduce_(torch.ones([10])).promise();
    await work().catch((error: FmoeError) =>
      reported(() => {
        throw error;
      }),
    );
  },
  async 'nothing received'() {
    world.timeout = 2;
    if (isFaulty) await delay(forever);
    if (rank === 0) reported(() => world.receive_(torch.zeros([4]), 1));
    await delay(forever);
  },
  mismatch() {
    world.timeout = 3;
    // One rank sends more than another wants: MPI notices that on arrival.
    const rows = (count: number): number[] => Array.from({ length: size }, () => count);
    const wanted = rows(1);
    const sent = rows(isFaulty ? 2 : 1);
    if (isFaulty) wanted[rank] = 2;
    reported(() => world.allToAll(torch.zeros([isFaulty ? 2 * size : size, 5000]), sent, wanted));
    reported(sum);
    report(rank, { code: 'none' });
  },
  mismatches,
  disagreements,
  async throws() {
    report(rank);
    world.barrier();
    if (isFaulty) throw new Error('the data ran out');
    reported(sum);
    await delay(forever);
  },
  async signalled() {
    if (isFaulty) {
      report(rank);
      await delay(forever);
    }
    report(rank);
    sum();
  },
  async interrupted() {
    process.on('SIGTERM', () => {});
    report(rank);
    if (isFaulty) await delay(forever);
    reported(sum);
  },
};

await faults[fault]!();
