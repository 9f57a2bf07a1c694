import { setTimeout as pause } from 'node:timers/promises';
import type { NodeLink, NodeMessage } from './node-link.js';
import { graceMilliseconds, type RankEnd } from './ranks.js';

/** What a launcher does about what happens on other machines. */
export interface NodeEvents {
  /** The first rank of all that failed. */
  onFailed(end: RankEnd): void;
  /** A launcher was told to stop. */
  onSignal(name: NodeJS.Signals): void;
  /** A machine is gone, or cannot go on. */
  onProblem(problem: string): void;
}

/** How long machine 0 has to say which rank failed first. */
const verdictMilliseconds = 1000;

/** The machines of a run as the launcher of one of them sees them: machine 0 sees all, the others see machine 0. */
export class Nodes {
  readonly node: number;
  readonly #links: ReadonlyMap<number, NodeLink>;
  #events: NodeEvents | undefined;
  #settled = false;
  #isOver = false;
  readonly #running = new Map<number, () => void>();
  #over: (problem: string | undefined) => void = () => {};
  readonly #whenOver = new Promise<string | undefined>((resolve) => {
    this.#over = resolve;
  });
  #start: (args: string[]) => void = () => {};
  readonly #whenStarted = new Promise<string[]>((resolve) => {
    this.#start = resolve;
  });

  constructor(node: number, links: ReadonlyMap<number, NodeLink>) {
    this.node = node;
    this.#links = links;
  }

  /** The address by which other machines reach this one. */
  get address(): string | undefined {
    return [...this.#links.values()][0]?.localAddress;
  }

  follow(events: NodeEvents): void {
    this.#events = events;
    for (const [from, link] of this.#links) {
      link.follow(
        (message) => this.#receive(from, message),
        () => {
          this.#running.get(from)?.();
          if (this.#isOver) return;
          const problem = `The launcher of machine ${from} (${link.address}) is gone or cannot be reached`;
          events.onProblem(problem);
          this.#over(problem);
        },
      );
    }
  }

  /** Has a machine run MPI's daemon, and waits for its end. On machine 0. */
  runDaemon(node: number, args: string[]): Promise<void> {
    this.#links.get(node)?.send({ kind: 'start', args });
    return new Promise((resolve) => {
      this.#running.set(node, resolve);
    });
  }

  /** The arguments of MPI's daemon; undefined when the run is over before. On other machines than 0. */
  daemonArguments(): Promise<string[] | undefined> {
    return Promise.race([this.#whenStarted, this.#whenOver.then(() => undefined)]);
  }

  /** Says that a rank of this machine failed. Machine 0 decides which one was the first. */
  report(end: RankEnd): void {
    if (this.#settled) return;
    if (this.node === 0) {
      this.#settle({ kind: 'failed', end });
      this.#events?.onFailed(end);
      return;
    }
    this.#links.get(0)!.send({ kind: 'failed', end });
    setTimeout(() => {
      // Cut off: it is the first as far as anybody here can know.
      if (this.#settled) return;
      this.#settled = true;
      this.#events?.onFailed(end);
      this.#over(undefined);
    }, verdictMilliseconds).unref();
  }

  /** Passes on a signal that this launcher got. */
  signal(name: NodeJS.Signals, except?: number): void {
    this.#settle({ kind: 'signal', name }, except);
    if (this.node !== 0)
      pause(graceMilliseconds, undefined, { ref: false }).then(() => this.#over(undefined));
  }

  /**
   * Ends together with the other machines, once the ranks of this one have ended.
   *
   * @param complaint what the program that started them complained of
   * @param settled whether it is known why the run ends
   * @returns what was wrong, on machine 0 or with the way there
   */
  async conclude(complaint: string | undefined, settled: boolean): Promise<string | undefined> {
    if (this.node === 0) {
      this.#send({ kind: 'over', problem: settled ? undefined : complaint });
      this.#end();
      return complaint;
    }
    this.#send({ kind: 'ended', problem: complaint });
    // Machine 0 may be out of reach.
    const late = pause(graceMilliseconds * 2, complaint, { ref: false });
    const problem = await (settled ? Promise.race([this.#whenOver, late]) : this.#whenOver);
    this.#end();
    return problem;
  }

  #receive(from: number, message: NodeMessage): void {
    const events = this.#events!;
    switch (message.kind) {
      case 'failed':
        if (this.node === 0) {
          this.report(message.end);
        } else {
          this.#settled = true;
          events.onFailed(message.end);
        }
        break;
      case 'signal':
        if (this.node === 0) this.signal(message.name, from);
        this.#settled = true;
        events.onSignal(message.name);
        break;
      case 'start':
        this.#start(message.args);
        break;
      case 'over':
        this.#isOver = true;
        this.#over(message.problem);
        break;
      case 'ended':
        this.#running.get(from)?.();
        // It ends when mpirun does, and a little before it at most.
        if (message.problem !== undefined) {
          setTimeout(() => {
            events.onProblem(`MPI's daemon on machine ${from} has ended: ${message.problem}`);
          }, graceMilliseconds).unref();
        }
    }
  }

  /** Tells the others why the run ends, once. */
  #settle(message: NodeMessage, except?: number): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#send(message, except);
  }

  #send(message: NodeMessage, except?: number): void {
    for (const [node, link] of this.#links) if (node !== except) link.send(message);
  }

  #end(): void {
    for (const link of this.#links.values()) link.end();
  }
}
