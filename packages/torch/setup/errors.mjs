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
