export type { Axis, MeshShape } from './axes.js';
export { DeviceMesh, type World } from './device-mesh.js';
