/**
 * Our figures, with the plan of `raw-alltoall.c` and the same way of timing: `group.allToAll` on float32 rows into a tensor that
 * is there (`reused`) and into a fresh one each time (`fresh`).
 */
import { readFileSync } from 'node:fs';
import { initProcessGroup } from '@fmoe/comm';
import * as torch from '@fmoe/torch';

const rowBytes = 256;
const plan = readFileSync(process.argv[2]!, 'utf8')
  .trim()
  .split('\n')
  .map((line) => line.split(' ').map(Number) as [bytes: number, iterations: number]);

const group = initProcessGroup();

/** Microseconds a call. */
function time(call: () => void, iterations: number): number {
  let begin = 0;
  for (let i = -iterations; i < iterations; i++) {
    if (i === 0) {
      group.barrier();
      begin = performance.now();
    }
    call();
  }
  const microseconds = ((performance.now() - begin) / iterations) * 1e3;
  group.barrier();
  return microseconds;
}

function measure(bytes: number, iterations: number): [reused: number, fresh: number] {
  const rows = bytes / group.size / rowBytes;
  // Small messages are rows of their own size.
  const width = rows < 1 ? bytes / group.size / 4 : rowBytes / 4;
  const counts = Array.from({ length: group.size }, () => Math.max(1, rows));
  return torch.tidy(() => {
    const x = torch.full([counts[0]! * group.size, width], group.rank);
    const out = torch.zerosLike(x);
    return [
      time(() => group.allToAll(x, counts, counts, out), iterations),
      time(() => group.allToAll(x, counts, counts).dispose(), iterations),
    ];
  });
}

// The compiler of JavaScript needs a few thousand calls, as many as a minute of training makes.
measure(plan[0]![0], 4000);
for (const [bytes, iterations] of plan) {
  const figures = measure(bytes, iterations);
  if (group.rank === 0) console.log(`${bytes} ${figures.map((figure) => figure.toFixed(3)).join(' ')}`);
}
