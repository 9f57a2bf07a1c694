export { ChebyshevLayer } from './chebyshev-layer.js';
export { KANExpert, type KANExpertOptions } from './kan-expert.js';
