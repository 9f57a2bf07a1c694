import { connect, createServer, type Server, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { FmoeError } from '@fmoe/torch';
import { type NodeDescription, NodeLink } from './node-link.js';
import { Nodes } from './nodes.js';

/** Where the launchers of several machines meet. */
export interface MeetingPoint {
  host: string;
  port: number;
  /** Time for all of them to come. */
  seconds: number;
}

/**
 * Waits until the launchers of all machines have found each other: machine 0 listens, the others connect to it. Nobody but machine 0
 * tells them what to do.
 *
 * @throws FmoeError ERR_COMM when one does not come in time; ERR_CONFIG when they do not go together, on each of them
 */
export function joinNodes(
  self: Omit<NodeDescription, 'host'> & { host?: string },
  point: MeetingPoint,
): Promise<Nodes> {
  const description = { host: hostname(), ...self };
  return self.node === 0 ? gather(description, point) : reach(description, point);
}

async function gather(self: NodeDescription, { port, seconds }: MeetingPoint): Promise<Nodes> {
  const server = createServer();
  const guests = new Set<Socket>();
  await listen(server, port);
  return new Promise((resolve, reject) => {
    const joined = new Map<number, { link: NodeLink; host: string }>();
    const stop = (): void => {
      clearTimeout(timer);
      // Ranks may use the port now.
      server.close();
      for (const guest of guests) guest.destroy();
    };
    const fail = (code: 'ERR_COMM' | 'ERR_CONFIG', reason: string): void => {
      for (const { link } of joined.values()) {
        link.send({ kind: 'refused', code, reason });
        link.end();
      }
      stop();
      reject(new FmoeError(code, `launch: ${reason}.`, { op: 'launch' }));
    };
    const timer = setTimeout(() => {
      const missing = Array.from({ length: self.nodes - 1 }, (_, i) => i + 1).filter((i) => !joined.has(i));
      const names = `machine${missing.length > 1 ? 's' : ''} ${missing.join(', ')}`;
      fail('ERR_COMM', `no launcher of ${names} came to port ${port} within ${seconds} s`);
    }, seconds * 1000);
    server.on('connection', (socket) => {
      guests.add(socket);
      const link = new NodeLink(socket);
      let node: number | undefined;
      link.follow(
        (message) => {
          if (message.kind !== 'join') return void socket.destroy();
          guests.delete(socket);
          const reason = mismatch(self, message, joined);
          if (reason !== undefined) {
            link.send({ kind: 'refused', code: 'ERR_CONFIG', reason });
            link.end();
            return fail('ERR_CONFIG', reason);
          }
          node = message.node;
          joined.set(node, { link, host: message.host });
          if (joined.size < self.nodes - 1) return;
          stop();
          for (const { link } of joined.values()) {
            link.hold();
            link.send({ kind: 'joined' });
          }
          resolve(new Nodes(0, new Map([...joined].map(([node, { link }]) => [node, link]))));
        },
        () => {
          guests.delete(socket);
          if (node !== undefined) joined.delete(node);
        },
      );
    });
  });
}

/** Why a machine cannot take part. */
function mismatch(
  self: NodeDescription,
  other: NodeDescription,
  joined: ReadonlyMap<number, { host: string }>,
): string | undefined {
  const { node } = other;
  if (other.nodes !== self.nodes) {
    return `machine ${node} was started for ${other.nodes} machines, machine 0 for ${self.nodes}`;
  }
  if (joined.has(node)) return `two launchers were started as machine ${node}`;
  if (other.processes !== self.processes) {
    return `machine ${node} has ${other.processes} ranks and machine 0 has ${self.processes}: give all the same --nproc-per-node`;
  }
  if (other.mpi !== self.mpi) {
    return `machine ${node} has ${other.mpi} and machine 0 has ${self.mpi}: all need the same (FMOE_MPIRUN names one)`;
  }
  // It takes processes with the same host name for processes that share memory.
  const twin = [[0, self] as const, ...joined].find(([, { host }]) => host === other.host);
  if (twin !== undefined && self.mpi.startsWith('openmpi')) {
    return `machines ${twin[0]} and ${node} have the same host name, ${other.host}, by which OpenMPI tells machines apart`;
  }
  return undefined;
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, '0.0.0.0', resolve);
  }).catch((cause: NodeJS.ErrnoException) => {
    const reason = cause.code === 'EADDRINUSE' ? 'it is taken' : cause.message;
    throw new FmoeError(
      'ERR_COMM',
      `launch: cannot wait for the other machines on port ${port}: ${reason}.`,
      {
        op: 'launch',
        argument: 'masterPort',
        cause,
      },
    );
  });
}

async function reach(self: NodeDescription, { host, port, seconds }: MeetingPoint): Promise<Nodes> {
  const deadline = performance.now() + seconds * 1000;
  let reason = 'it does not answer';
  for (;;) {
    const left = deadline - performance.now();
    if (left <= 0) break;
    const answer = await ask(self, connect({ host, port, family: 4 }), left);
    if (answer instanceof NodeLink) return new Nodes(self.node, new Map([[0, answer]]));
    if (answer instanceof FmoeError) throw answer;
    reason = answer;
    await pause(Math.min(250, left));
  }
  throw new FmoeError(
    'ERR_COMM',
    `launch: machine ${self.node} did not reach all others through machine 0 at ${host}:${port} within ${seconds} s: ${reason}.`,
    { op: 'launch', argument: 'masterAddr' },
  );
}

/** One try to join: the connection, the answer that machine 0 refuses, or why there is none. */
function ask(
  self: NodeDescription,
  socket: Socket,
  milliseconds: number,
): Promise<NodeLink | FmoeError | string> {
  return new Promise((resolve) => {
    let reason = 'it closed the connection';
    const timer = setTimeout(() => {
      reason = socket.connecting ? 'it does not answer' : 'other machines are missing';
      socket.destroy();
    }, milliseconds);
    socket.on('error', (error) => {
      reason = error.message;
    });
    const link = new NodeLink(socket);
    link.follow(
      (message) => {
        clearTimeout(timer);
        link.hold();
        if (message.kind === 'joined') return resolve(link);
        link.end();
        if (message.kind !== 'refused') return resolve('what answers there is no launcher');
        resolve(new FmoeError(message.code, `launch: ${message.reason}.`, { op: 'launch' }));
      },
      () => {
        clearTimeout(timer);
        resolve(reason);
      },
    );
    link.send({ kind: 'join', ...self });
  });
}
