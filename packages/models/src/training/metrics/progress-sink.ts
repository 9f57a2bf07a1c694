import cliProgress from 'cli-progress';
import {
  type EvaluationRecord,
  type MetricRecord,
  type MetricSink,
  quotedLoss,
  type StartRecord,
  type TrainRecord,
  worstImbalance,
} from './records.js';

/** Settings of {@link ProgressSink}. */
export interface ProgressOptions {
  /** Where to write; standard output when left out. */
  stream?: NodeJS.WritableStream & { isTTY?: boolean };
  /** Fewest seconds between two plain lines; 5 when left out. */
  secondsBetweenLines?: number;
  /** Clock, milliseconds. */
  now?: () => number;
}

/** Shows how a run goes: a bar on a terminal, plain lines elsewhere. */
export class ProgressSink implements MetricSink {
  readonly #stream: NodeJS.WritableStream & { isTTY?: boolean };
  readonly #wait: number;
  readonly #now: () => number;
  #bar: cliProgress.SingleBar | undefined;
  #start: StartRecord | undefined;
  #lastLine = Number.NEGATIVE_INFINITY;
  readonly #pace = new Pace();

  constructor(options: ProgressOptions = {}) {
    this.#stream = options.stream ?? process.stdout;
    this.#wait = (options.secondsBetweenLines ?? 5) * 1000;
    this.#now = options.now ?? Date.now;
  }

  write(record: MetricRecord): void {
    if (record.kind === 'start') this.#begin(record);
    else if (record.kind === 'train') this.#train(record);
    else if (record.kind === 'evaluation') this.#evaluation(record);
  }

  close(): void {
    this.#bar?.stop();
    this.#bar = undefined;
  }

  #begin(record: StartRecord): void {
    this.#start = record;
    const from = record.step > 0 ? `from step ${record.step} ` : '';
    this.#line(
      `${record.name}: ${record.parameters.toLocaleString('en')} parameters on ${record.device}, ` +
        `${from}to step ${record.steps}`,
    );
    if (this.#stream.isTTY !== true) return;
    this.#bar = new cliProgress.SingleBar({
      format: '{bar} {line}',
      stream: this.#stream,
      barsize: 20,
      hideCursor: true,
      clearOnComplete: true,
      gracefulExit: false,
      barCompleteChar: '█',
      barIncompleteChar: '░',
    });
    this.#bar.start(record.steps, record.step, { line: '' });
  }

  #train(record: TrainRecord): void {
    const start = this.#start;
    if (start === undefined) return;
    const line = progressLine(record, start, this.#pace.secondsLeft(record, start));
    if (this.#bar !== undefined) {
      this.#bar.update(record.step, { line });
      return;
    }
    const now = this.#now();
    if (now - this.#lastLine < this.#wait && record.step < start.steps) return;
    this.#lastLine = now;
    this.#line(line);
  }

  #evaluation(record: EvaluationRecord): void {
    const quoted = quotedLoss(record.loss, this.#start?.unit ?? 'character');
    const line =
      `step ${record.step} | ${record.split} loss ${record.loss.toFixed(4)} | ` +
      `${quoted.name} ${quoted.value.toFixed(3)}`;
    if (this.#bar === undefined) {
      this.#line(line);
      return;
    }
    // The bar owns the last line of the terminal: clear it, print, and let the next update draw it again.
    this.#stream.write(`\r\u001b[K${line}\n`);
  }

  #line(text: string): void {
    this.#stream.write(`${text}\n`);
  }
}

/** One line about a training record. */
export function progressLine(record: TrainRecord, start: StartRecord, secondsLeft: number): string {
  const quoted = quotedLoss(record.loss, start.unit);
  const uneven = worstImbalance(record.expertLoad);
  const dropped = Math.max(0, ...(record.droppedShare ?? []).map((share) => share ?? 0));
  return [
    `step ${record.step}/${start.steps}`,
    `loss ${record.loss.toFixed(4)}`,
    `${quoted.short} ${quoted.value.toFixed(3)}`,
    `${Math.round(record.tokensPerSecond)} tokens/s`,
    ...(uneven === undefined ? [] : [`imbalance ${uneven.toFixed(2)}`]),
    ...(dropped > 0 ? [`dropped ${(100 * dropped).toFixed(1)} %`] : []),
    `${clock(secondsLeft)} left`,
  ].join(' | ');
}

/** Estimates the time left from the pace of late: the machine may have been busy with something else before. */
class Pace {
  #previous: { step: number; seconds: number } | undefined;
  #secondsPerStep: number | undefined;

  secondsLeft(record: TrainRecord, start: StartRecord): number {
    const { step, seconds } = this.#previous ?? start;
    const now = (record.seconds - seconds) / Math.max(1, record.step - step);
    this.#secondsPerStep = this.#secondsPerStep === undefined ? now : 0.8 * this.#secondsPerStep + 0.2 * now;
    this.#previous = record;
    return this.#secondsPerStep * (start.steps - record.step);
  }
}

/** Seconds as `m:ss` or `h:mm:ss`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (value: number): string => value.toString().padStart(2, '0');
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const tail = pad(whole % 60);
  return hours > 0 ? `${hours}:${pad(minutes)}:${tail}` : `${minutes}:${tail}`;
}
