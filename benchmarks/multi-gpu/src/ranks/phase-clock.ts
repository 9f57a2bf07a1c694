import { cuda } from '@fmoe/torch';

/** How long the parts of a step take, one after the other. */
export interface PhaseClock {
  /** Begins, before the first part. */
  start(): void;
  /** What was done since the mark before belongs to this part. */
  mark(phase: string): void;
  /** Waits for the step to end; milliseconds by part. */
  read(): Record<string, number>;
}

export function phaseClock(isGpu: boolean): PhaseClock {
  return isGpu ? new EventClock() : new HostClock();
}

/** By events in the current stream, which the streams of groups and this one wait for in turn: the host runs ahead as it does without them. */
class EventClock implements PhaseClock {
  #marks: { phase: string; event: InstanceType<typeof cuda.Event> }[] = [];

  start(): void {
    this.#marks = [];
    this.mark('');
  }

  mark(phase: string): void {
    this.#marks.push({ phase, event: new cuda.Event({ enableTiming: true }).record() });
  }

  read(): Record<string, number> {
    cuda.synchronize();
    const marks = this.#marks;
    return summed(
      marks.slice(1).map(({ phase, event }, i) => [phase, marks[i]!.event.elapsedTime(event)] as const),
    );
  }
}

class HostClock implements PhaseClock {
  #marks: { phase: string; time: number }[] = [];

  start(): void {
    this.#marks = [];
    this.mark('');
  }

  mark(phase: string): void {
    this.#marks.push({ phase, time: performance.now() });
  }

  read(): Record<string, number> {
    const marks = this.#marks;
    return summed(marks.slice(1).map(({ phase, time }, i) => [phase, time - marks[i]!.time] as const));
  }
}

function summed(parts: readonly (readonly [string, number])[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [phase, milliseconds] of parts) sums[phase] = (sums[phase] ?? 0) + milliseconds;
  return sums;
}
