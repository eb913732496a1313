import { cp, writeFile } from 'node:fs/promises'
import { defineConfig, type Options } from 'tsup'
import { jsonSchema } from './src/config/schema.js'

// Small, and needed by all: to find and read each takes as long as all of our own code. Most are ES modules, besides,
// which `require` can't load everywhere: jest's never can.
const bundled = ['p-retry', 'is-network-error', 'bytes']

/** commander is CommonJS and requires Node's own modules, for which an ES module has no `require`. */
const REQUIRE = "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url)"

const shared: Options = {
  target: 'node20',
  platform: 'node',
  treeshake: true,
  silent: true,
  noExternal: bundled,
}

export default defineConfig([
  {
    ...shared,
    entry: {
      index: 'src/index.ts',
      config: 'src/config/define.ts',
      webhooks: 'fixtures/webhooks/index.ts',
      testcontainers: 'fixtures/testcontainers.ts',
      'node-test': 'fixtures/node-test.ts',
      jest: 'fixtures/jest.ts',
      playwright: 'fixtures/playwright.ts',
      // vitest can't be required, and neither can these.
      vitest: 'fixtures/vitest.ts',
      'vitest-global': 'fixtures/vitest-global.ts',
    },
    format: 'esm',
    // One file each: to find and read a file takes a millisecond or two.
    splitting: false,
    dts: true,
    // The fixtures import the package by its own name.
    external: ['pipe-tunnel', 'vitest', '@playwright/test', '@jest/globals', 'testcontainers'],
  },
  {
    ...shared,
    entry: { cli: 'src/cli/main.ts' },
    format: 'esm',
    // Each command loads what it needs.
    splitting: true,
    // The server runs where nothing is installed, too: in a container.
    noExternal: [...bundled, 'commander', 'leven', 'smol-toml', 'jsonc-parser'],
    banner: { js: REQUIRE },
    onSuccess: async () => {
      await writeFile('dist/schema.json', JSON.stringify(jsonSchema, null, 2))
      // As they are: they are read when the page is asked for.
      await cp('src/web/page', 'dist/page', { recursive: true })
    },
  },
  {
    ...shared,
    entry: {
      index: 'src/index.ts',
      config: 'src/config/define.ts',
      webhooks: 'fixtures/webhooks/index.ts',
      'node-test': 'fixtures/node-test.ts',
      jest: 'fixtures/jest.ts',
      playwright: 'fixtures/playwright.ts',
    },
    format: 'cjs',
    // jest's CommonJS can't `import()`, so it becomes `require()`, which tree-shaking by Rollup would undo.
    treeshake: false,
    esbuildOptions: (options) => {
      options.supported = { 'dynamic-import': false }
    },
    dts: true,
    external: ['pipe-tunnel', '@playwright/test', '@jest/globals'],
  },
  {
    ...shared,
    entry: { testcontainers: 'fixtures/testcontainers.ts' },
    format: 'cjs',
    dts: true,
    // `import.meta.url` has no counterpart in CommonJS.
    shims: true,
    external: ['pipe-tunnel', 'testcontainers'],
  },
])
