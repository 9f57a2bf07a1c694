import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { RankEnd } from './ranks.js';

/** What launchers of one run say to each other. Machine 0 hears all others, and they hear only it. */
export type NodeMessage =
  /** To machine 0, first of all. */
  | ({ kind: 'join' } & NodeDescription)
  /** From machine 0: all are there; or why the run cannot begin. */
  | { kind: 'joined' }
  | { kind: 'refused'; code: 'ERR_COMM' | 'ERR_CONFIG'; reason: string }
  /** From machine 0: the arguments of MPI's daemon. */
  | { kind: 'start'; args: string[] }
  /** To machine 0: a rank failed. From it: the one that failed first. */
  | { kind: 'failed'; end: RankEnd }
  | { kind: 'signal'; name: NodeJS.Signals }
  /** To machine 0: the daemon has ended, and what it complained of. */
  | { kind: 'ended'; problem?: string | undefined }
  /** From machine 0, last of all. */
  | { kind: 'over'; problem?: string | undefined };

/** What must go together on all machines. */
export interface NodeDescription {
  node: number;
  nodes: number;
  processes: number;
  /** Family and version of the MPI. */
  mpi: string;
  /** Its host name. */
  host: string;
}

/** Idle time after which the system asks the other side whether it is there; it then takes ten more seconds to give up. */
const keepAliveMilliseconds = 30_000;

/** A connection between two launchers: a line of JSON is a message. */
export class NodeLink {
  readonly #socket: Socket;
  #address = 'unknown address';
  #early: NodeMessage[] = [];
  #onMessage: ((message: NodeMessage) => void) | undefined;
  #onClose: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true).setKeepAlive(true, keepAliveMilliseconds);
    const note = (): void => {
      this.#address = socket.remoteAddress ?? this.#address;
    };
    note();
    socket
      .on('connect', note)
      .on('error', () => {})
      .on('close', () => this.#onClose?.());
    const lines = createInterface({ input: socket });
    // It repeats those of the socket.
    lines.on('error', () => {});
    lines.on('line', (line) => {
      const message = parse(line);
      if (message === undefined) socket.destroy();
      else if (this.#onMessage === undefined) this.#early.push(message);
      else this.#onMessage(message);
    });
  }

  /** The other side's address. */
  get address(): string {
    return this.#address;
  }

  /** The address of this side by which the other one reaches it. */
  get localAddress(): string | undefined {
    return this.#socket.localAddress;
  }

  /** From now on these hear what comes, beginning with what came before. */
  follow(onMessage: (message: NodeMessage) => void, onClose: () => void): void {
    this.#onMessage = onMessage;
    this.#onClose = onClose;
    if (this.#socket.destroyed) onClose();
    for (const message of this.#early.splice(0)) onMessage(message);
  }

  /** Keeps what comes for the next that follows. */
  hold(): void {
    this.#onMessage = undefined;
    this.#onClose = undefined;
  }

  send(message: NodeMessage): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Closes after what was sent, which the other side may be unable to take. */
  end(): void {
    this.#onClose = undefined;
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), 500);
  }
}

/** A message, or undefined for what is none: something else may have found the port. */
function parse(line: string): NodeMessage | undefined {
  try {
    const message: unknown = JSON.parse(line);
    return typeof message === 'object' && message !== null && 'kind' in message
      ? (message as NodeMessage)
      : undefined;
  } catch {
    return undefined;
  }
}
