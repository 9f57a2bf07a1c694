export { followLauncher } from './follow-launcher.js';
export { type LaunchResult, launch } from './launch.js';
export type { LaunchBackend, LaunchOptions } from './launch-plan.js';
export { findMpirun, listMpiruns, type Mpirun, mpirunArguments } from './mpirun.js';
export type { RankEnd } from './ranks.js';
