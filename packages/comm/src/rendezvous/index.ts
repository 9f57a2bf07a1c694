export type { LauncherName } from './launchers.js';
export { type Rendezvous, readRendezvous } from './read-rendezvous.js';
