import { defineConfig } from '@fmoe/models/training';
import { sotu } from './base.js';

export default defineConfig(sotu('sotu-dense', { dInner: 512 }));
