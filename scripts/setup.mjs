import { setUp } from './workspace.mjs';

await setUp();
