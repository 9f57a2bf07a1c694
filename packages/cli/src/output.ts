/** Where a command writes. */
export interface Output {
  out: NodeJS.WritableStream & { isTTY?: boolean };
  error: NodeJS.WritableStream;
}

/** The process's own streams. */
export const standardOutput: Output = { out: process.stdout, error: process.stderr };
