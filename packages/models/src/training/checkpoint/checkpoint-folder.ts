import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { ProcessGroup } from '@fmoe/comm';
import { FmoeError } from '@fmoe/torch';
import { syncFolder, writeWholeFile } from '../atomic-write.js';

/** A finished checkpoint. */
export interface CheckpointEntry {
  step: number;
  folder: string;
}

const namePattern = /^step-(\d+)$/;
const temporaryPrefix = '.tmp-';
const bestFile = 'best.json';

/** The checkpoints of a run: one folder each, named by step. */
export class CheckpointFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** All finished checkpoints, oldest first. What an interrupted save left behind is not among them. */
  list(): CheckpointEntry[] {
    if (!existsSync(this.path)) return [];
    return readdirSync(this.path)
      .flatMap((name) => {
        const step = namePattern.exec(name)?.[1];
        return step === undefined ? [] : [{ step: Number(step), folder: join(this.path, name) }];
      })
      .sort((a, b) => a.step - b.step);
  }

  /**
   * The checkpoint that a user names: `last`, `best`, a step, or a folder.
   *
   * @throws FmoeError ERR_FILE when there is none
   */
  find(which: string): string {
    if (which === 'last') {
      const last = this.list().at(-1);
      if (last !== undefined) return last.folder;
      throw new FmoeError('ERR_FILE', `${this.path} has no checkpoint yet.`);
    }
    if (which === 'best') {
      const best = this.best();
      if (best !== undefined) return this.#folderOf(best.step);
      throw new FmoeError('ERR_FILE', `${this.path} has no best checkpoint: nothing was evaluated yet.`);
    }
    const folder = /^\d+$/.test(which) ? this.#folderOf(Number(which)) : which;
    if (existsSync(folder)) return folder;
    const steps = this.list().map(({ step }) => step);
    throw new FmoeError(
      'ERR_FILE',
      `There is no checkpoint ${which}. ${steps.length > 0 ? `Steps that were kept: ${steps.join(', ')}.` : `${this.path} has none.`}`,
    );
  }

  /** The checkpoint with the lowest validation loss, if one is marked. */
  best(): { step: number; loss: number } | undefined {
    try {
      const best = JSON.parse(readFileSync(join(this.path, bestFile), 'utf8')) as {
        step: number;
        loss: number;
      };
      return existsSync(this.#folderOf(best.step)) ? best : undefined;
    } catch {
      return undefined;
    }
  }

  /** Marks a checkpoint as the best one; it is then kept beside the last ones. */
  markBest(step: number, loss: number): void {
    writeWholeFile(join(this.path, bestFile), `${JSON.stringify({ step, loss })}\n`);
  }

  /**
   * Makes a checkpoint appear whole or not at all: `write` fills a folder with a temporary name (and waits until its files
   * are on the disk), which is then renamed.
   *
   * @returns the checkpoint's folder
   * @throws FmoeError ERR_FILE when the system refuses
   */
  add(step: number, write: (folder: string) => void, suffix = `${process.pid}`): string {
    const folder = this.#folderOf(step);
    const temporary = this.#temporaryOf(step, suffix);
    try {
      this.#removeTemporary();
      mkdirSync(temporary, { recursive: true });
      write(temporary);
      syncFolder(temporary);
      if (existsSync(folder)) {
        // Left by a longer run that was rolled back, or damaged: moved away, as a rename cannot replace a full folder.
        renameSync(folder, join(this.path, `${temporaryPrefix}old-${basename(folder)}`));
      }
      renameSync(temporary, folder);
      syncFolder(this.path);
      this.#removeTemporary();
      return folder;
    } catch (cause) {
      rmSync(temporary, { recursive: true, force: true });
      if (FmoeError.isInstance(cause)) throw cause;
      throw new FmoeError(
        'ERR_FILE',
        `Cannot save a checkpoint in ${this.path}: ${(cause as Error).message}`,
        { cause },
      );
    }
  }

  /**
   * The same for several ranks, which all call it: each writes its files into the folder, and waits for the others inside of
   * `write`.
   */
  addTogether(step: number, group: ProcessGroup, write: (folder: string) => void): string {
    const suffix = 'ranks';
    if (group.rank === 0) {
      this.add(
        step,
        (temporary) => {
          group.barrier(); // the folder is there
          write(temporary);
        },
        suffix,
      );
    } else {
      group.barrier();
      write(this.#temporaryOf(step, suffix));
    }
    group.barrier(); // it has its name
    return this.#folderOf(step);
  }

  /** Removes all but the last `keep` checkpoints and the best one. */
  prune(keep: number): void {
    const best = this.best()?.step;
    for (const { step, folder } of this.list().slice(0, -keep)) if (step !== best) this.#remove(folder);
  }

  /**
   * Removes what a run had saved after the step that another one went on from: it is of a training that is given up.
   *
   * @param own the step that the new run has just saved
   */
  abandon(resumed: number, own: number): void {
    if ((this.best()?.step ?? 0) > resumed) rmSync(join(this.path, bestFile), { force: true });
    for (const { step, folder } of this.list()) if (step > resumed && step !== own) this.#remove(folder);
  }

  #remove(folder: string): void {
    // Renamed first, so that a half-removed folder is never taken for a checkpoint.
    const temporary = join(dirname(folder), `${temporaryPrefix}old-${basename(folder)}`);
    renameSync(folder, temporary);
    rmSync(temporary, { recursive: true, force: true });
  }

  #folderOf(step: number): string {
    return join(this.path, `step-${step.toString().padStart(8, '0')}`);
  }

  #temporaryOf(step: number, suffix: string): string {
    return join(this.path, `${temporaryPrefix}${basename(this.#folderOf(step))}-${suffix}`);
  }

  #removeTemporary(): void {
    if (!existsSync(this.path)) return;
    for (const name of readdirSync(this.path)) {
      if (name.startsWith(temporaryPrefix)) rmSync(join(this.path, name), { recursive: true, force: true });
    }
  }
}
