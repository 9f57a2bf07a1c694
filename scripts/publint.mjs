import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { root } from './workspace.mjs';

// Checks every published package as npm would pack it.
let problems = 0;
for (const name of readdirSync(join(root, 'packages')).sort()) {
  const pkgDir = join(root, 'packages', name);
  const manifest = JSON.parse(readFileSync(join(pkgDir, 'package.json'), 'utf8'));
  const { messages } = await publint({ pkgDir, strict: true, pack: 'npm' });
  console.log(`${manifest.name}: ${messages.length === 0 ? 'ok' : `${messages.length} messages`}`);
  for (const message of messages) {
    problems += message.type === 'suggestion' ? 0 : 1;
    console.log(`  ${message.type}: ${formatMessage(message, manifest)}`);
  }
}
process.exitCode = problems > 0 ? 1 : 0;
