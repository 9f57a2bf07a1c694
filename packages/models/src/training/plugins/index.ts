export { loadPlugins, type MoEPlugins } from './load-plugins.js';
export { absolutePlugin } from './plugin-name.js';
