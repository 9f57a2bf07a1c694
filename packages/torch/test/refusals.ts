import { expect, it } from 'vitest';
import type { FmoeErrorCode } from '../src/index.js';
import * as torch from '../src/index.js';

/** What is refused, the code and the words of the error, and the call. */
export type Refusal = [what: string, code: FmoeErrorCode, message: RegExp, body: () => unknown];

/** A test for each call that must end in a coded error. */
export function refuses(cases: Refusal[]): void {
  it.each(cases)('%s: %s', (_what, code, message, body) => {
    torch.tidy(() => {
      const expected = { name: 'FmoeError', code, message: expect.stringMatching(message) };
      expect(body).toThrow(expect.objectContaining(expected));
    });
  });
}

/** What a caller without types could pass. */
// biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
export const wrong = (value: unknown): any => value;
