import { defineConfig } from 'tsup';

export default defineConfig({
  entry: {
    index: 'src/index.ts',
    main: 'src/main.ts',
  },
  format: ['esm'],
  target: 'node20',
  tsconfig: 'tsconfig.build.json',
  external: [/^@fmoe\//],
  sourcemap: true,
  clean: true,
});
