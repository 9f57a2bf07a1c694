import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll } from 'vitest';

const made: string[] = [];

afterAll(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** An empty folder that is removed after the tests of the file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'fmoe-test-'));
  made.push(folder);
  return folder;
}

/** Writes files into a new temporary folder. */
export function folderWith(files: Readonly<Record<string, string | Uint8Array>>): string {
  const folder = temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
  }
  return folder;
}

/** Matches an FmoeError of a code whose one-line message fits. */
export function codedError(code: string, message: RegExp): unknown {
  return {
    asymmetricMatch: (error: unknown) => isCoded(error, code) && message.test((error as Error).message),
  };
}

function isCoded(error: unknown, code: string): boolean {
  return error instanceof Error && error.name === 'FmoeError' && (error as { code?: unknown }).code === code;
}
