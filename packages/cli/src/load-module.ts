import * as comm from '@fmoe/comm';
import * as kernels from '@fmoe/kernels';
import * as layers from '@fmoe/layers';
import * as gates from '@fmoe/layers/gates';
import * as models from '@fmoe/models';
import * as training from '@fmoe/models/training';
import * as torch from '@fmoe/torch';
import * as setup from '@fmoe/torch/setup';
import { createJiti } from 'jiti';

/**
 * What a file may import of this library: this command's own copy, so that a file needs no installation beside it and never
 * loads the binding a second time.
 */
const ownPackages = {
  '@fmoe/comm': comm,
  '@fmoe/kernels': kernels,
  '@fmoe/layers': layers,
  '@fmoe/layers/gates': gates,
  '@fmoe/models': models,
  '@fmoe/models/training': training,
  '@fmoe/torch': torch,
  '@fmoe/torch/setup': setup,
};

/** Runs a TypeScript or JavaScript file and gives its exports, or its default export. */
export async function loadModule(path: string, options: { default?: true } = {}): Promise<unknown> {
  const jiti = createJiti(import.meta.url, { virtualModules: ownPackages, fsCache: false });
  return jiti.import(path, options);
}
