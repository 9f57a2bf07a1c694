/** Processes that cannot reach the store by which NCCL's ranks find each other. */
import { createServer } from 'node:net';
import { cuda } from '@fmoe/torch';
import { describeUnless } from '@fmoe/torch/testing';
import { describe, expect, it } from 'vitest';
import { commOperator } from '../src/load.js';

const start = (port: number, rank: number): unknown =>
  commOperator('start_nccl')('libnccl.so.2', '127.0.0.1', port, rank, 2, false, 2);

/** A port of this machine, and whether something listens there while `body` runs. */
async function withPort(listening: boolean, body: (port: number) => void): Promise<void> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as { port: number };
  if (!listening) await new Promise((done) => server.close(done));
  body(port);
  if (listening) await new Promise((done) => server.close(done));
}

describe('a store', () => {
  it('where nothing listens is an error in time, with the address', async () => {
    await withPort(false, (port) => {
      const begin = performance.now();
      expect(() => start(port, 1)).toThrow(
        expect.objectContaining({
          code: 'ERR_COMM',
          message: expect.stringMatching(
            new RegExp(`rank 1 cannot reach the store at 127.0.0.1:${port} within 2 s`),
          ),
        }),
      );
      expect(performance.now() - begin).toBeLessThan(10_000);
    });
  });

  it('whose port is taken is an error', async () => {
    await withPort(true, (port) => {
      expect(() => start(port, 0)).toThrow(
        expect.objectContaining({
          code: 'ERR_COMM',
          message: expect.stringMatching(new RegExp(`rank 0 cannot serve the store on port ${port}`)),
        }),
      );
    });
  });
});

describeUnless(cuda.isAvailable() ? 'there is a GPU' : undefined, 'NCCL without a GPU', () => {
  it('is an error once the ranks have met', async () => {
    await withPort(false, (port) => {
      expect(() => start(port, 0)).toThrow(
        expect.objectContaining({ code: 'ERR_COMM', message: expect.stringMatching(/needs a CUDA device/) }),
      );
    });
  });
});
