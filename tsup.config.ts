import { defineConfig, type Options } from 'tsup'

const shared: Options = {
  target: 'node20',
  platform: 'node',
  treeshake: true,
  silent: true,
  // Small, and needed by all: to find and read each takes as long as all of our own code. Most are ES modules, besides,
  // which `require` can't load everywhere: jest's never can.
  noExternal: ['p-retry', 'is-network-error', 'bytes'],
}

export default defineConfig([
  {
    ...shared,
    entry: { index: 'src/index.ts', vitest: 'fixtures/vitest.ts', webhooks: 'fixtures/webhooks/index.ts' },
    format: 'esm',
    // One file each: to find and read a file takes a millisecond or two.
    splitting: false,
    dts: true,
    // The fixtures import the package by its own name.
    external: ['pipe-tunnel', 'vitest'],
  },
  {
    ...shared,
    entry: { cli: 'src/cli/main.ts' },
    format: 'esm',
    // Each command loads what it needs.
    splitting: true,
  },
  {
    ...shared,
    entry: { index: 'src/index.ts', webhooks: 'fixtures/webhooks/index.ts' },
    format: 'cjs',
    dts: true,
    external: ['pipe-tunnel'],
  },
])
