/** Our all-to-all, and the exchange of rows, on the plan that raw-alltoall.c is given too. */
import { Placement, type ProcessGroup, TokenExchange } from '@fmoe/comm';
import { full, tensor, tidy, zeros } from '@fmoe/torch';
import type { BandwidthSettings } from '../bandwidth.js';
import { joinRanks } from './rank.js';

/** `[bytes, milliseconds]` of each size and round. */
export type Times = [bytes: number, milliseconds: number][];
export interface BandwidthFigures {
  allToAll: Times;
  /** Rows of the model's width to four experts a rank, equally many for each. */
  exchange: Times;
}

const { settings, group, device, leave, synchronize } = joinRanks<BandwidthSettings>();
const figures: BandwidthFigures = { allToAll: [], exchange: [] };

function time(iterations: number, call: () => void): number {
  let begin = 0;
  for (let i = -(Math.floor(iterations / 10) + 2); i < iterations; i++) {
    if (i === 0) {
      group.barrier();
      synchronize();
      begin = performance.now();
    }
    call();
  }
  synchronize();
  return (performance.now() - begin) / iterations;
}

/** One row for each rank: how a part is divided into rows makes no difference. */
function allToAll(bytes: number, iterations: number): number {
  return tidy(() => {
    const x = full([group.size, bytes / group.size], group.rank, { dtype: 'uint8', device });
    const rows = Array.from({ length: group.size }, () => 1);
    return time(iterations, () => group.allToAll(x, rows, rows).dispose());
  });
}

function exchange(members: ProcessGroup, bytes: number, iterations: number): number | undefined {
  const { expertsPerRank, width } = settings;
  const experts = expertsPerRank * members.size;
  const rows = bytes / (2 * width * experts);
  if (!Number.isInteger(rows)) return undefined;
  return tidy(() => {
    const counts = tensor(new Array<number>(experts).fill(rows), { dtype: 'int64', device });
    const way = new TokenExchange(counts, Placement.even(experts, members.size), members);
    const x = zeros([rows * experts, width], { dtype: 'bfloat16', device });
    return time(iterations, () => way.scatter(x).dispose());
  });
}

for (let round = 0; round < settings.rounds; round++) {
  for (const [bytes, iterations] of settings.plan) {
    figures.allToAll.push([bytes, allToAll(bytes, iterations)]);
    const milliseconds = exchange(group, bytes, iterations);
    if (milliseconds !== undefined) figures.exchange.push([bytes, milliseconds]);
    leave(figures);
  }
}
group.barrier();
synchronize();
