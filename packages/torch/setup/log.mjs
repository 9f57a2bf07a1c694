/**
 * How set-up speaks: `start` as a step begins, `done` when it ends, `note` for anything between.
 *
 * @typedef {object} Log
 * @property {(text: string) => void} note
 * @property {<T>(title: string, work: () => T | Promise<T>) => Promise<T>} step
 */

/**
 * @param {number} milliseconds
 * @returns {string} for people: `0.4 s`, `12.3 s`, `2 min 05 s`
 */
export function formatDuration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
}

/**
 * @param {(line: string) => void} [write] takes one line, without its newline
 * @returns {Log} a log that prints each step with the time it took
 */
export function createLog(write = (line) => console.log(line)) {
  return {
    note(text) {
      write(`    ${text}`);
    },
    async step(title, work) {
      write(`--> ${title}`);
      const begin = performance.now();
      const result = await work();
      write(`    done: ${title} (${formatDuration(performance.now() - begin)})`);
      return result;
    },
  };
}

/** @type {Log} A log that says nothing. */
export const silentLog = {
  note() {},
  async step(_title, work) {
    return work();
  },
};
