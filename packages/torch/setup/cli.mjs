#!/usr/bin/env node
import { doctor, formatDoctor } from './doctor.mjs';
import { asSetupError } from './errors.mjs';
import { createLog, formatDuration } from './log.mjs';
import { findNativePackages } from './packages.mjs';
import { prepareNative } from './prepare.mjs';

const USAGE = `Usage: fmoe-setup [--check] [--force]

Gets libtorch if there is none and builds the native parts of the @fmoe packages that this project uses.

  --check   change nothing; print what is there and what is missing
  --force   build the native parts even if nothing has changed
  --help    print this

FMOE_HOME (default ~/.cache/fmoe) keeps what is downloaded. LIBTORCH, LIBTORCH_INCLUDE, LIBTORCH_LIB or
LIBTORCH_USE_PYTORCH=1 name a libtorch of your own. FMOE_TORCH_VARIANT=cpu or cuda overrides the choice by GPU.
FMOE_MPI=openmpi, mpich, both with a comma, or none says which MPI to serve; without it that of the system, or OpenMPI.`;

/**
 * @param {string[]} args
 * @returns {Promise<number>} the exit code
 */
async function main(args) {
  const unknown = args.find((arg) => !['--check', '--force', '--help', '-h'].includes(arg));
  if (unknown !== undefined) {
    console.error(`Unknown option ${unknown}\n\n${USAGE}`);
    return 2;
  }
  if (args.includes('--help') || args.includes('-h')) {
    console.log(USAGE);
    return 0;
  }
  const packages = findNativePackages();
  if (args.includes('--check')) {
    const rows = doctor({ packages });
    console.log(formatDoctor(rows));
    return rows.some((row) => row.status === 'missing') ? 1 : 0;
  }
  const begin = performance.now();
  const { libtorch, built } = await prepareNative({
    log: createLog(),
    packages,
    force: args.includes('--force'),
  });
  const work = built.length === 0 ? 'nothing to build' : `built ${built.join(', ')}`;
  console.log(`libtorch ${libtorch.version} in ${libtorch.root}`);
  console.log(`Ready: ${work} (${formatDuration(performance.now() - begin)})`);
  return 0;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const known = asSetupError(error);
  if (!known) throw error;
  console.error(`Set-up failed. ${known.message}`);
  process.exitCode = 1;
}
