/** Our figure: `group.allToAll` on float32 rows, with the plan of `raw-alltoall.c` and the same way of timing. */
import { readFileSync } from 'node:fs';
import { initProcessGroup } from '@fmoe/comm';
import * as torch from '@fmoe/torch';

const rowBytes = 256;
const plan = readFileSync(process.argv[2]!, 'utf8')
  .trim()
  .split('\n')
  .map((line) => line.split(' ').map(Number) as [bytes: number, iterations: number]);

const group = initProcessGroup();
for (const [bytes, iterations] of plan) {
  const rows = Array.from({ length: group.size }, () => bytes / group.size / rowBytes);
  // Small messages are rows of their own size.
  const width = rows[0]! < 1 ? bytes / group.size / 4 : rowBytes / 4;
  const counts = rows.map((count) => Math.max(1, count));
  torch.tidy(() => {
    const x = torch.full([counts[0]! * group.size, width], group.rank);
    let begin = 0;
    for (let i = -(Math.floor(iterations / 10) + 2); i < iterations; i++) {
      if (i === 0) {
        group.barrier();
        begin = performance.now();
      }
      group.allToAll(x, counts, counts).dispose();
    }
    if (group.rank === 0)
      console.log(`${bytes} ${(((performance.now() - begin) / iterations) * 1e3).toFixed(3)}`);
    group.barrier();
  });
}
