import { defineConfig } from '@fmoe/models/training';
import { sotu } from './base.js';

export default defineConfig(sotu('sotu-moe', { dInner: 256, moe: { numExpert: 8, topK: 2 } }));
