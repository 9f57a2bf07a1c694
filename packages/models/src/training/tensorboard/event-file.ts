import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import { histogramEvent, type Moment, restartEvent, scalarEvent, textEvent, versionEvent } from './event.js';
import type { Histogram } from './histogram.js';
import { frameRecord } from './record.js';

/** Writes a TensorBoard event file; every call is on disk when it returns. */
export class EventFile {
  readonly path: string;
  readonly #now: () => number;
  #descriptor: number | undefined;

  /**
   * @param folder made if missing; the file's name follows TensorBoard's rule
   * @param options.now clock, seconds since 1970
   * @throws FmoeError ERR_FILE when the file cannot be made
   */
  constructor(folder: string, options: { now?: () => number } = {}) {
    this.#now = options.now ?? (() => Date.now() / 1000);
    const seconds = Math.floor(this.#now()).toString().padStart(10, '0');
    this.path = join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.0`);
    try {
      mkdirSync(folder, { recursive: true });
      this.#descriptor = openSync(this.path, 'a');
    } catch (cause) {
      throw new FmoeError('ERR_FILE', `Cannot write the event file ${this.path}: ${String(cause)}`, {
        cause,
      });
    }
    this.#write(versionEvent(this.#now()));
  }

  /** A point of the curve `tag`. */
  scalar(tag: string, value: number, step: number): void {
    this.#write(scalarEvent(this.#moment(step), tag, value));
  }

  /** A distribution of `tag`. */
  histogram(tag: string, value: Histogram, step: number): void {
    this.#write(histogramEvent(this.#moment(step), tag, value));
  }

  /** A text under `tag`, shown as Markdown. */
  text(tag: string, value: string, step: number): void {
    this.#write(textEvent(this.#moment(step), tag, value));
  }

  /** Makes TensorBoard drop what earlier files of the run hold at and after `step`. */
  restart(step: number): void {
    this.#write(restartEvent(this.#moment(step)));
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #moment(step: number): Moment {
    return { wallTime: this.#now(), step };
  }

  #write(message: Uint8Array): void {
    if (this.#descriptor === undefined) {
      throw new FmoeError('ERR_FILE', `The event file ${this.path} is closed.`);
    }
    writeSync(this.#descriptor, frameRecord(message));
  }
}
