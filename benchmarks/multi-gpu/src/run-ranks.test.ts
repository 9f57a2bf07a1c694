import { expect, it } from 'vitest';
import { runRanks } from './run-ranks.js';

/** Ranks that run a program of one line, which finds its rank in `rank` and its folder in `folder`. */
function run(body: string, limitSeconds = 20) {
  const program = `const rank = process.env.RANK, folder = process.argv[1];
    const leave = (result) => require('node:fs').writeFileSync(folder + '/rank-' + rank + '.json', JSON.stringify(result));
    ${body}`;
  // Started by the launcher itself, which needs no GPU for that.
  const command = [process.execPath, '-e', program];
  return runRanks<number>({ command, ranks: 2, backend: 'nccl', limitSeconds });
}

it('reads what the ranks left, in their order', async () => {
  expect(await run('leave(10 + Number(rank))')).toEqual({ results: [10, 11] });
});

it('keeps what was left before a rank failed, and says why it did', async () => {
  const { results, error } = await run(
    `const fail = () => { console.error("no such luck"); process.exit(3); };
     const size = (file) => require("node:fs").statSync(file, { throwIfNoEntry: false })?.size ?? 0;
     leave(1);
     setInterval(() => { if (rank === "1" && size(folder + "/rank-0.json") > 0) fail(); }, 50)`,
  );
  expect(results).toEqual([1, 1]);
  expect(error).toContain('exit code 3');
  expect(error).toContain('[1] no such luck');
});

it('ends ranks that take too long, deaf ones as well, and keeps what they left', async () => {
  const begin = performance.now();
  const { results, error } = await run(
    'leave(1); process.on("SIGTERM", () => {}); setInterval(() => {}, 1000)',
    1,
  );
  expect(results).toEqual([1, 1]);
  expect(error).toContain('not done after 1 s');
  expect(performance.now() - begin).toBeLessThan(15_000);
});

it('says so when a rank leaves nothing', async () => {
  const { results, error } = await run('if (rank === "0") leave(1)');
  expect(results).toEqual([1]);
  expect(error).toBe('1 of 2 ranks left results');
});
