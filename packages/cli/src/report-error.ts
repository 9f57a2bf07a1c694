import { FmoeError } from '@fmoe/torch';

/**
 * Ends a command on an error: a user's mistake as one line with its code, anything else as `ERR_RUNTIME`. With `FMOE_DEBUG=1`
 * the stack and the causes follow.
 *
 * @returns the text for standard error
 */
export function describeError(error: unknown, env: NodeJS.ProcessEnv = process.env): string {
  const { code, message } = codeAndMessage(error);
  const line = `fmoe: ${code}: ${message.trim().replaceAll(/\s*\n\s*/g, ' ')}\n`;
  if (env['FMOE_DEBUG'] !== '1') {
    return FmoeError.isInstance(error) || isSetupError(error)
      ? line
      : `${line.trimEnd()} (FMOE_DEBUG=1 shows where.)\n`;
  }
  return `${line}${stacks(error).join('\ncaused by: ')}\n`;
}

function codeAndMessage(error: unknown): { code: string; message: string } {
  if (FmoeError.isInstance(error) || isSetupError(error)) return { code: error.code, message: error.message };
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { code: 'ERR_RUNTIME', message };
}

/** Set-up throws its own class, which needs nothing to be installed; it carries the same code. */
function isSetupError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && (error as { code?: unknown }).code === 'ERR_SETUP';
}

function stacks(error: unknown): string[] {
  const own = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const cause = error instanceof Error ? error.cause : undefined;
  return cause === undefined ? [own] : [own, ...stacks(cause)];
}
