import { followLauncher } from '@fmoe/comm';
import { runCli } from './run-cli.js';

followLauncher();
process.exitCode = await runCli(process.argv.slice(2));
