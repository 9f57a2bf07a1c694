import { writeFileSync } from 'node:fs';

/**
 * What a test run came to.
 *
 * @typedef {object} Summary
 * @property {number} passed
 * @property {number} failed
 * @property {{ reason: string, count: number }[]} skipped the skipped tests by their reason
 * @property {string[]} problems errors outside tests: files that did not load, unhandled rejections
 */

/**
 * Why a test was skipped: its note, or what a suite that is skipped as a whole says in its title.
 *
 * @param {import('vitest/node').TestResult} result
 * @param {string} fullName
 * @returns {string | undefined}
 */
function skipReason(result, fullName) {
  const note = result.state === 'skipped' ? result.note : undefined;
  return note ?? /skipped: ([^)]+)\)/.exec(fullName)?.[1];
}

/** A vitest reporter that writes a {@link Summary} to the file that `FMOE_TEST_SUMMARY` names. */
export default class SummaryReporter {
  /**
   * @param {ReadonlyArray<import('vitest/node').TestModule>} modules
   * @param {ReadonlyArray<{ message?: string }>} unhandledErrors
   */
  onTestRunEnd(modules, unhandledErrors) {
    const file = process.env['FMOE_TEST_SUMMARY'];
    if (!file) return;
    let passed = 0;
    let failed = 0;
    /** @type {Map<string, number>} */
    const reasons = new Map();
    /** @type {string[]} */
    const problems = [];
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === 'passed') passed += 1;
        else if (result.state === 'failed') failed += 1;
        else {
          const text =
            skipReason(result, test.fullName) ??
            `no reason given (${module.relativeModuleId}: ${test.fullName})`;
          reasons.set(text, (reasons.get(text) ?? 0) + 1);
        }
      }
      for (const error of module.errors()) problems.push(`${module.relativeModuleId}: ${error.message}`);
      for (const suite of module.children.allSuites()) {
        for (const error of suite.errors()) problems.push(`${suite.fullName}: ${error.message}`);
      }
    }
    for (const error of unhandledErrors) problems.push(error.message ?? String(error));
    const skipped = [...reasons].map(([reason, count]) => ({ reason, count }));
    /** @type {Summary} */
    const summary = { passed, failed, skipped, problems };
    writeFileSync(file, JSON.stringify(summary));
  }
}
