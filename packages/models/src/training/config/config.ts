import { isAbsolute, resolve } from 'node:path';
import { z } from 'zod';
import { absolutePlugin } from '../plugins/plugin-name.js';
import { configError } from './config-error.js';
import { dataSchema } from './data-schema.js';
import { modelSchema } from './model-schema.js';
import { checkpointSchema, evaluationSchema, loggingSchema, trainingSchema } from './training-schema.js';

/** The whole configuration of a run. Every object refuses keys that it does not know. */
export const configSchema = z.strictObject({
  /** Names the run and its folder. */
  name: z.string().regex(/^[\w.-]+$/, 'expected letters, digits, dots, hyphens and underscores'),
  /** Folder that the runs' folders are in; relative to the folder where the command runs. */
  runs: z.string().min(1).default('runs'),
  seed: z.int().default(1111),
  /** `auto` takes the first GPU where there is one. */
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/, "expected 'auto', 'cpu', 'cuda' or 'cuda:1'")
    .default('auto'),
  /** Threads of an operator on the CPU; as libtorch chooses when left out. */
  threads: z.int().min(1).optional(),
  data: dataSchema,
  model: modelSchema,
  training: trainingSchema,
  evaluation: evaluationSchema.prefault({}),
  logging: loggingSchema.prefault({}),
  checkpoint: checkpointSchema.prefault({}),
});

/** A configuration as it is written: what has a default may be left out. */
export type Config = z.input<typeof configSchema>;

/** A configuration with every default filled in. */
export type ResolvedConfig = z.output<typeof configSchema>;

/** Gives a configuration file its types: `export default defineConfig({ ... })`. */
export function defineConfig(config: Config): Config {
  return config;
}

/**
 * Checks a configuration and fills in the defaults.
 *
 * @param value what a configuration file exports
 * @param options.folder folder that relative paths of data start at; the current one when left out
 * @throws FmoeError ERR_CONFIG in one line that names every key which is unknown, missing or wrong
 */
export function resolveConfig(value: unknown, options: { folder?: string } = {}): ResolvedConfig {
  const result = configSchema.safeParse(value);
  if (!result.success) throw configError(result.error.issues, configSchema, value);
  const folder = options.folder ?? process.cwd();
  return {
    ...result.data,
    data: withAbsolutePaths(result.data.data, folder),
    model: withAbsolutePlugins(result.data.model, folder),
  };
}

type ModelConfig = ResolvedConfig['model'];

function withAbsolutePlugins(model: ModelConfig, folder: string): ModelConfig {
  const { moe } = model;
  if (moe === undefined) return model;
  const expert = moe.expert && absolutePlugin(moe.expert, folder);
  return { ...model, moe: { ...moe, gate: absolutePlugin(moe.gate, folder), ...(expert && { expert }) } };
}

type DataConfig = ResolvedConfig['data'];

function withAbsolutePaths(data: DataConfig, folder: string): DataConfig {
  const absolute = (path: string): string => (isAbsolute(path) ? path : resolve(folder, path));
  if (data.kind === 'text') {
    return { ...data, train: absolute(data.train), valid: absolute(data.valid), test: absolute(data.test) };
  }
  return { ...data, path: absolute(data.path) };
}
