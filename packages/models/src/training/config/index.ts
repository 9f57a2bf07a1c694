export { type Config, configSchema, defineConfig, type ResolvedConfig, resolveConfig } from './config.js';
export { applyOverrides } from './overrides.js';
