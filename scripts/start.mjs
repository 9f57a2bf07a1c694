import { join } from 'node:path';
import { foreground } from './foreground.mjs';
import { root, setUp, toolEnvironment } from './workspace.mjs';

/** The main job: the example that trains on real text. */
const example = join(root, 'examples/sotu');
const script = 'src/main.ts';

await setUp();
const args = ['--import', import.meta.resolve('tsx'), script, ...process.argv.slice(2)];
process.exitCode = await foreground(process.execPath, args, { cwd: example, env: toolEnvironment() });
