import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import { writeWholeFile } from '../atomic-write.js';
import type { MetricRecord, MetricSink } from './records.js';

/** One JSON object a line; the file that reports and plots are made from. */
export class JsonlSink implements MetricSink {
  readonly #path: string;

  /**
   * @param path made if missing, with its folder
   * @param options.resumeFrom step that the run goes on from: later records, of an interrupted run, are dropped;
   *   0 empties the file
   */
  constructor(path: string, options: { resumeFrom: number }) {
    this.#path = path;
    mkdirSync(dirname(path), { recursive: true });
    const { resumeFrom } = options;
    const kept =
      resumeFrom > 0 && existsSync(path)
        ? readMetrics(path).filter((record) => record.step <= resumeFrom)
        : [];
    writeWholeFile(path, kept.map((record) => `${JSON.stringify(record)}\n`).join(''));
  }

  write(record: MetricRecord): void {
    appendFileSync(this.#path, `${JSON.stringify(record)}\n`);
  }

  close(): void {}
}

/**
 * Reads what {@link JsonlSink} wrote. A last line that was cut off by a crash is left out.
 *
 * @throws FmoeError ERR_FILE when the file is missing or holds something else
 */
export function readMetrics(path: string): MetricRecord[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new FmoeError('ERR_FILE', `Cannot read ${path}: is this the folder of a run?`, { cause });
  }
  const lines = text.split('\n');
  lines.pop();
  return lines.map((line, index) => {
    try {
      const record = JSON.parse(line) as MetricRecord;
      if (typeof record.kind === 'string' && typeof record.step === 'number') return record;
    } catch {
      // Reported below, as any other line that is not a record.
    }
    throw new FmoeError('ERR_FILE', `${path}, line ${index + 1}: not a record of a training run.`);
  });
}
