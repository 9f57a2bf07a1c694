import { defineConfig } from 'tsup';

export default defineConfig({
  entry: {
    index: 'src/index.ts',
    'transformer-xl/index': 'src/transformer-xl/index.ts',
    'training/index': 'src/training/index.ts',
    'data/index': 'src/data/index.ts',
    'report/index': 'src/report/index.ts',
  },
  format: ['esm'],
  target: 'node20',
  tsconfig: 'tsconfig.build.json',
  external: [/^@fmoe\//],
  sourcemap: true,
  clean: true,
});
