/**
 * The layer rule: imports go downwards only.
 *
 *   torch < kernels < comm < layers < models < cli
 *
 * A package may import those to its left and nothing to its right. Type-only imports count as well.
 */
const layers = ['torch', 'kernels', 'comm', 'layers', 'models', 'cli'];

const upward = layers.slice(0, -1).map((layer, index) => {
  const above = layers.slice(index + 1);
  return {
    name: `no-upward-import-from-${layer}`,
    comment: `@fmoe/${layer} may not import ${above.map((name) => `@fmoe/${name}`).join(', ')}.`,
    severity: 'error',
    from: { path: `^packages/${layer}/` },
    // The second form catches a specifier that did not resolve to a source file.
    to: { path: [`^packages/(${above.join('|')})/`, `(^|/)@fmoe/(${above.join('|')})(/|$)`] },
  };
});

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...upward,
    {
      name: 'no-import-from-outside-packages',
      comment: 'A published package may not reach into examples, benchmarks or scripts.',
      severity: 'error',
      from: { path: '^packages/' },
      to: { path: '^(examples|benchmarks|scripts)/' },
    },
    {
      name: 'no-deep-import',
      comment: 'Other packages are imported through their exports, never through their files.',
      severity: 'error',
      from: { path: '^packages/([^/]+)/' },
      to: {
        path: '^packages/([^/]+)/',
        pathNot: ['^packages/$1/'],
        // An import by name resolves to sources through tsconfig's paths: that is the right way.
        dependencyTypesNot: ['aliased'],
      },
    },
    {
      name: 'no-circular',
      comment: 'Cycles of values are errors; cycles of types alone are allowed.',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'not-to-unresolvable',
      comment: 'Every import must resolve.',
      severity: 'error',
      from: { path: '^packages/' },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '(^|/)(dist|native)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['types', 'import', 'node', 'default'],
      extensions: ['.ts', '.mts', '.mjs', '.js', '.cjs', '.json', '.d.ts', '.node'],
    },
  },
};
