export { exitCodeOf, interruptible } from './interrupt.js';
export { loadConfig } from './load-config.js';
export type { Output } from './output.js';
export { describeError } from './report-error.js';
export { runCli } from './run-cli.js';
export { summarizeConfig } from './summarize-config.js';
