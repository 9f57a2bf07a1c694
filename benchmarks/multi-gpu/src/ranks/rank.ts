/** What every rank does first and last. */
import { renameSync, writeFileSync } from 'node:fs';
import { followLauncher, initProcessGroup, type ProcessGroup, readRendezvous } from '@fmoe/comm';
import { cuda, manualSeed } from '@fmoe/torch';

export interface Rank<Settings> {
  settings: Settings;
  /** All ranks. */
  group: ProcessGroup;
  /** Where this one computes. */
  device: string;
  isGpu: boolean;
  /** For files of this run; removed when it is over. */
  folder: string;
  /** Leaves its results, in the place of what it left before. */
  leave(results: unknown): void;
  /** Waits for the device. */
  synchronize(): void;
}

/** Reads the settings from the arguments, takes the GPU of this rank, and meets the others. */
export function joinRanks<Settings extends { device: 'cpu' | 'cuda' }>(): Rank<Settings> {
  followLauncher();
  const [text, folder] = process.argv.slice(2) as [string, string];
  const settings = JSON.parse(text) as Settings;
  const isGpu = settings.device === 'cuda';
  const { localRank } = readRendezvous();
  if (isGpu) cuda.setDevice(localRank);
  const group = initProcessGroup();
  // Tokens of its own for each rank; what must be the same on all is sent around.
  manualSeed(1 + group.rank);
  return {
    settings,
    group,
    device: isGpu ? `cuda:${localRank}` : 'cpu',
    isGpu,
    folder,
    leave(results) {
      const file = `${folder}/rank-${group.rank}.json`;
      writeFileSync(`${file}.new`, JSON.stringify(results));
      renameSync(`${file}.new`, file);
    },
    synchronize() {
      if (isGpu) cuda.synchronize();
    },
  };
}
