/**
 * A set-up failure that the user can mend: what is wrong, and what to do about it.
 *
 * It carries the same `code` as the library's own set-up errors, so a caller can branch on it.
 */
export class SetupError extends Error {
  /** @type {'ERR_SETUP'} */
  code = 'ERR_SETUP';

  /**
   * @param {string} problem What is wrong, in one or more sentences.
   * @param {string} [remedy] What to do about it: a command where there is one.
   * @param {ErrorOptions} [options]
   */
  constructor(problem, remedy, options) {
    super(remedy ? `${problem}\n  Remedy: ${remedy}` : problem, options);
    this.name = 'SetupError';
    /** @type {string} */
    this.problem = problem;
    /** @type {string | undefined} */
    this.remedy = remedy;
  }
}

/** What the system says when files cannot be written, and what to do about it. */
const fileProblems = /** @type {Readonly<Record<string, string>>} */ ({
  EACCES: 'run set-up as the user who owns that folder, or set FMOE_HOME to a folder of your own',
  EPERM: 'run set-up as the user who owns that folder, or set FMOE_HOME to a folder of your own',
  ENOTDIR: 'a file is where a folder is to be: set FMOE_HOME to a folder',
  EEXIST: 'a file is where a folder is to be: set FMOE_HOME to a folder',
  EROFS: 'that file system is read-only: set FMOE_HOME to a folder that can be written',
  ENOSPC: 'the disk is full: free some space, or set FMOE_HOME to a folder on a larger disk',
  EDQUOT: 'the disk quota is used up: free some space, or set FMOE_HOME to a folder on another disk',
});

/**
 * Tells a failure that the user can mend from a fault of ours.
 *
 * @param {unknown} error
 * @returns {SetupError | undefined} nothing for anything else, which then deserves its stack trace
 */
export function asSetupError(error) {
  if (error instanceof SetupError) return error;
  const code = error instanceof Error ? /** @type {NodeJS.ErrnoException} */ (error).code : undefined;
  const remedy = code === undefined ? undefined : fileProblems[code];
  return remedy ? new SetupError(/** @type {Error} */ (error).message, remedy, { cause: error }) : undefined;
}
