import { defineConfig } from '@fmoe/models/training';
import { sotu } from './base.js';

// On many ranks the balance loss is that of all their tokens, so that their number changes nothing.
const gateOptions = { globalBatch: true };

export default defineConfig(sotu('sotu-moe', { dInner: 256, moe: { numExpert: 8, topK: 2, gateOptions } }));
