/** Runs every case of every suite on this rank and reports which failed. */
import { scoped } from '@fmoe/torch';
import { joinTestRanks } from '../../src/testing/index.js';
import type { Suite } from './cases.js';
import { exchanges } from './exchanges.js';
import { gradients } from './gradients.js';
import { groups } from './groups.js';
import { movements } from './movements.js';
import { reductions } from './reductions.js';
import { report } from './report.js';
import { rows } from './rows.js';

const suites: Record<string, Suite> = { reductions, movements, groups, rows, exchanges, gradients };

const { world } = joinTestRanks();
const failures: string[] = [];
let count = 0;
for (const [suiteName, suite] of Object.entries(suites)) {
  for (const [name, body] of Object.entries(suite(world))) {
    count++;
    try {
      await scoped(async () => {
        await body();
      });
    } catch (error) {
      failures.push(`${suiteName}: ${name}: ${error instanceof Error ? error.stack : String(error)}`);
      // The others may now wait for this rank in vain.
      if (failures.length > 5) break;
    }
  }
}
report(world.rank, { rank: world.rank, size: world.size, members: world.members, count, failures });
