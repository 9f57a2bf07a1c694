import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Names the launcher's folder to the ranks. */
export const folderVariable = 'FMOE_LAUNCHER';
/** The socket in it that is open as long as the launcher lives. */
export const socketName = 'alive';

/** A folder for what launcher and ranks share, with a socket that tells the ranks that the launcher lives. */
export class LauncherPresence {
  readonly folder: string;
  readonly #server: Server;

  private constructor(folder: string, server: Server) {
    this.folder = folder;
    this.#server = server;
  }

  static async open(): Promise<LauncherPresence> {
    const folder = mkdtempSync(join(tmpdir(), 'fmoe-launch-'));
    const server = createServer((socket) => {
      socket.on('error', () => {});
      socket.resume();
      socket.unref();
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(join(folder, socketName), resolve);
    });
    server.unref();
    return new LauncherPresence(folder, server);
  }

  /** What the ranks must have in their environment. */
  get env(): NodeJS.ProcessEnv {
    return { [folderVariable]: this.folder };
  }

  close(): void {
    this.#server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
