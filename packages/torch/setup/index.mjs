/**
 * Finding libtorch and building the native parts: what `npx fmoe-setup` does, as functions.
 *
 * Plain JavaScript without dependencies, so that it runs before anything is installed or built.
 */
export { doctor, formatDoctor } from './doctor.mjs';
export { SetupError } from './errors.mjs';
export { findLibtorch } from './libtorch.mjs';
export { createLog, formatDuration, silentLog } from './log.mjs';
export { hasNvidiaGpu, wantedVariant } from './machine.mjs';
export { ensureMpis, findMpis } from './mpi.mjs';
export { buildFolder, buildNative, isBuilt, readBuildRecord } from './native-build.mjs';
export { findNativePackages } from './packages.mjs';
export { fmoeHome } from './paths.mjs';
export { ensureLibtorch, prepareNative } from './prepare.mjs';
export { judgeTorchVersion, OLDEST_TORCH, TESTED_TORCH } from './torch-version.mjs';

/** @typedef {import('./doctor.mjs').DoctorRow} DoctorRow */
/** @typedef {import('./libtorch.mjs').Libtorch} Libtorch */
/** @typedef {import('./log.mjs').Log} Log */
/** @typedef {import('./mpi.mjs').Mpi} Mpi */
/** @typedef {import('./mpi.mjs').MpiFamily} MpiFamily */
/** @typedef {import('./native-build.mjs').BuildRecord} BuildRecord */
/** @typedef {import('./packages.mjs').NativePackage} NativePackage */
/** @typedef {import('./paths.mjs').Environment} Environment */
